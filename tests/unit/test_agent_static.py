"""The static store: a file that tells all nodes."""

from __future__ import annotations

import json
import os
import queue
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.model.events import Configured, Failed, Held, Listed, Recovered
from cni.agent.model.lease import Endpoint, Lease, Node
from cni.agent.model.leaseformat import derived_mac
from cni.agent.stores import watchfile
from cni.agent.stores.static import StaticStore, by_key, parse_nodes
from cni.protocol.address import parse_ip, parse_mac, parse_net
from cni.protocol.errors import DecodingFailure, InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.agent.model.events import StoreEvent

MAC = "0a:00:00:00:00:02"
ONE = {"name": "one", "PublicIP": "192.0.2.1", "Subnet": "10.5.1.0/24"}
TWO = {"name": "two", "PublicIP": "192.0.2.2", "Subnet": "10.5.2.0/24", "VtepMAC": MAC}
FILE: dict[str, Any] = {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}, "nodes": [ONE, TWO]}
DUAL = {
    **FILE,
    "EnableIPv6": True,
    "IPv6Network": "fd00:5::/56",
    "nodes": [
        {**ONE, "PublicIPv6": "2001:db8::1", "IPv6Subnet": "fd00:5:0:1::/64"},
        {**TWO, "PublicIPv6": "2001:db8::2", "IPv6Subnet": "fd00:5:0:2::/64"},
    ],
}


def text(file: dict[str, Any], **changed: Any) -> bytes:
    return json.dumps({**file, **changed}).encode()


def endpoint(number: int, mac: bytes | None) -> Endpoint:
    return Endpoint(parse_net(f"10.5.{number}.0/24"), parse_ip(f"192.0.2.{number}"), mac)


LEASE1 = Lease((endpoint(1, derived_mac(parse_ip("192.0.2.1"), 7)),), "vxlan", 7, name="one")
LEASE2 = Lease((endpoint(2, parse_mac(MAC)),), "vxlan", 7, name="two")


def test_each_node_has_a_lease_and_without_a_mac_address_a_derived_one() -> None:
    nodes = parse_nodes(text(FILE), "nodes.json")
    assert [(entry.name, entry.lease) for entry in nodes.entries] == [("one", LEASE1), ("two", LEASE2)]
    assert by_key(nodes.settled({}), ()) == {"10.5.1.0-24": LEASE1, "10.5.2.0-24": LEASE2}
    assert nodes.config.backend.vni == 7


def test_both_families_have_their_ways() -> None:
    first, second = parse_nodes(text(DUAL), "nodes.json").entries
    assert first.lease.key == "10.5.1.0-24&fd00:5:0:1::-64"
    assert [endpoint.vtep_mac for endpoint in first.lease.endpoints] == [
        derived_mac(parse_ip("192.0.2.1"), 7),
        derived_mac(parse_ip("2001:db8::1"), 7),
    ]
    assert [endpoint.vtep_mac for endpoint in second.lease.endpoints] == [parse_mac(MAC)] * 2


def test_a_network_of_ipv6_alone_needs_no_ipv4_of_its_nodes() -> None:
    ipv6 = [{key: node[key] for key in ("name", "PublicIPv6", "IPv6Subnet")} for node in DUAL["nodes"]]
    file = text(
        {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd00:5::/56", "Backend": FILE["Backend"]}, nodes=ipv6
    )
    leases = [entry.lease for entry in parse_nodes(file, "nodes.json").entries]
    assert [lease.key for lease in leases] == ["fd00:5:0:1::-64", "fd00:5:0:2::-64"]
    assert [lease.endpoints[0].vtep_mac for lease in leases] == [
        derived_mac(parse_ip(f"2001:db8::{number}"), 7) for number in (1, 2)
    ]


def test_with_host_gw_nobody_has_a_mac_address() -> None:
    nodes = parse_nodes(text(FILE, Backend={"Type": "host-gw"}), "nodes.json")
    assert [entry.lease for entry in nodes.entries] == [
        Lease((endpoint(1, None),), "host-gw", name="one"),
        Lease((endpoint(2, None),), "host-gw", name="two"),
    ]


def test_keys_are_read_in_any_case() -> None:
    upper = {**FILE, "nodes": [{key.upper(): value for key, value in node.items()} for node in (ONE, TWO)]}
    assert parse_nodes(text(upper), "it") == parse_nodes(text(FILE), "it")


def test_without_nodes_there_are_none() -> None:
    assert parse_nodes(text({key: FILE[key] for key in ("Network", "Backend")}), "it").entries == ()


BAD = [
    ({"PublicIP": None}, "nodes[1].PublicIP: missing"),
    ({"PublicIP": "2001:db8::2"}, "nodes[1].PublicIP: expected IPv4"),
    ({"PublicIP": "two.example"}, "nodes[1].PublicIP: 'two.example' is not an IP address"),
    ({"PublicIP": ""}, "nodes[1].PublicIP: missing"),
    ({"PublicIP": "127.0.0.1"}, "nodes[1].PublicIP: 127.0.0.1 is not an address of a node"),
    ({"PublicIP": 7}, "nodes[1].PublicIP: expected a text"),
    ({"Subnet": None}, "nodes[1].Subnet: missing"),
    ({"Subnet": "10.5.2.0"}, "nodes[1].Subnet: '10.5.2.0' has no prefix length (as in 10.5.2.0/24)"),
    ({"Subnet": "10.5.2.1/24"}, "nodes[1].Subnet: 10.5.2.1/24 has host bits set (did you mean 10.5.2.0/24?)"),
    ({"Subnet": "fd00::/64"}, "nodes[1].Subnet: expected IPv4"),
    ({"Subnet": "10.6.2.0/24"}, "nodes[1].Subnet: 10.6.2.0/24 is not in 10.5.0.0/16"),
    ({"VtepMAC": "01:00:5e:00:00:01"}, "nodes[1].VtepMAC: '01:00:5e:00:00:01' is a group or null address"),
]


@pytest.mark.parametrize(("changed", "error"), BAD)
def test_what_is_wrong_with_a_node_is_reported_with_its_path_and_harms_no_other(
    changed: dict[str, Any], error: str
) -> None:
    nodes = parse_nodes(text(FILE, nodes=[ONE, {**TWO, **changed}]), "nodes.json")
    assert [entry.name for entry in nodes.entries] == ["one"]
    assert error in nodes.errors["two"]
    assert "; " not in nodes.errors["two"]
    assert by_key(nodes.settled({"two": LEASE2}), ()) == {"10.5.1.0-24": LEASE1, "10.5.2.0-24": LEASE2}
    assert by_key(nodes.settled({}), ()) == {"10.5.1.0-24": LEASE1, "two": nodes.errors["two"]}


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({**TWO, "name": ""}, "nodes[1].name: missing"),
        ({}, "nodes[1].name: missing; nodes[1].PublicIP: missing; nodes[1].Subnet: missing"),
        ("two", "nodes[1]: expected an object"),
        ([], "nodes[1]: expected an object"),
        (None, "nodes[1]: expected an object"),
    ],
)
def test_an_entry_without_a_name_is_reported_by_its_place(bad: Any, error: str) -> None:
    nodes = parse_nodes(text(FILE, nodes=[ONE, bad]), "nodes.json")
    assert (nodes.errors, [entry.name for entry in nodes.entries]) == ({"nodes[1]": error}, ["one"])


@pytest.mark.parametrize("second", [{**TWO, "name": "one"}, {"name": "one"}])
def test_entries_of_one_name_leave_that_node_as_it_was(second: dict[str, Any]) -> None:
    nodes = parse_nodes(text(FILE, nodes=[ONE, second, TWO]), "nodes.json")
    assert nodes.errors == {"one": "nodes: duplicate name 'one'"}
    assert nodes.settled({"one": LEASE1}) == {"one": LEASE1, "two": LEASE2}


@pytest.mark.parametrize("subnet", ["10.5.1.0/24", "10.5.1.128/25", "10.5.0.0/23"])
def test_two_entries_with_one_subnet_leave_both_nodes_as_they_were(subnet: str) -> None:
    nodes = parse_nodes(text(FILE, nodes=[ONE, {**TWO, "Subnet": subnet}]), "nodes.json")
    assert nodes.shared.keys() == {"one", "two"}
    assert "'one'" in nodes.shared["two"]
    assert "'two'" in nodes.shared["two"]
    assert nodes.settled({"one": LEASE1, "two": LEASE2}) == {"one": LEASE1, "two": LEASE2}
    assert nodes.sound() == {}


def test_who_had_a_subnet_goes_before_who_claims_it() -> None:
    same = [{**TWO, "Subnet": "10.5.1.0/24"}, ONE]
    nodes = parse_nodes(text(FILE, nodes=same), "nodes.json")
    listed = by_key(nodes.settled({"one": LEASE1}), ["one"])
    assert (listed["10.5.1.0-24"], [*listed]) == (LEASE1, ["10.5.1.0-24", "10.5.1.0-24 of two"])


@pytest.mark.parametrize("nodes", ["two", {"two": TWO}, 7])
def test_nodes_are_a_list(nodes: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"nodes: expected a list"):
        parse_nodes(text(FILE, nodes=nodes), "nodes.json")


def test_faults_of_the_network_are_those_of_the_file() -> None:
    with pytest.raises(InvalidConfig, match=r"Backend\.Type: 'udp' "):
        parse_nodes(text(FILE, Backend={}), "nodes.json")
    with pytest.raises(DecodingFailure, match=r"nodes\.json is not JSON"):
        parse_nodes(b"{", "nodes.json")


def test_of_nodes_with_the_same_subnet_the_later_bears_its_name() -> None:
    same = [ONE, *({**TWO, "name": name, "Subnet": "10.5.1.0/24"} for name in ("two", "three"))]
    nodes = parse_nodes(text(FILE, nodes=same), "nodes.json")
    assert [*by_key(nodes.settled({}), ())] == ["10.5.1.0-24", "10.5.1.0-24 of two", "10.5.1.0-24 of three"]


class StoreUnderTest:
    """A store on a file, and what it tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.addresses = {parse_ip("127.0.0.1")}
        self.heard: queue.Queue[StoreEvent] = queue.Queue()
        self.store = StaticStore(str(path), "two", "host", lambda: self.addresses)

    def start(self) -> None:
        self.store.start(self.heard.put)

    def next(self) -> StoreEvent:
        return self.heard.get(timeout=20)

    def write(self, content: bytes) -> None:
        """As programs should, in one piece."""
        beside = self.path.with_suffix(".new")
        beside.write_bytes(content)
        os.rename(beside, self.path)


@pytest.fixture
def tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreUnderTest]:
    monkeypatch.setattr(watchfile, "LOOK_SECONDS", 0.01)
    teller = StoreUnderTest(tmp_path / "nodes.json")
    yield teller
    teller.store.register(Node("vxlan", 7, ()))
    teller.store.close()


def test_the_network_is_reported_first_and_the_rest_once_the_node_is_presented(tested: StoreUnderTest) -> None:
    tested.write(text(FILE))
    tested.start()
    configured = tested.next()
    assert configured == Configured(parse_nodes(text(FILE), "").config, (parse_ip("192.0.2.2"),))
    assert tested.heard.empty()
    tested.store.register(Node("vxlan", 7, ()))
    assert tested.next() == Held(LEASE2)
    assert tested.next() == Listed({LEASE1.key: LEASE1, LEASE2.key: LEASE2})


def started(tested: StoreUnderTest) -> None:
    """It has told all of the usual file."""
    tested.write(text(FILE))
    tested.store.register(Node("vxlan", 7, ()))
    tested.start()
    assert [type(tested.next()) for _ in range(3)] == [Configured, Held, Listed]


def test_a_file_that_changed_is_reported_anew(tested: StoreUnderTest) -> None:
    started(tested)
    three = {"name": "three", "PublicIP": "192.0.2.3", "Subnet": "10.5.3.0/24"}
    tested.write(text(FILE, nodes=[TWO, three]))
    assert isinstance(tested.next(), Configured)
    assert tested.next() == Held(LEASE2)
    listed = tested.next()
    assert isinstance(listed, Listed)
    assert [*listed.leases] == ["10.5.2.0-24", "10.5.3.0-24"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "is empty"),
        (b'{"Network":', "is not JSON"),
        (text(FILE, Backend={}), "'udp' is not supported"),
        (text(FILE, nodes=[ONE]), "has no node named 'two', as --node-name or NODE_NAME says; it has one"),
    ],
)
def test_a_file_that_is_wrong_is_reported_and_what_was_reported_stays(
    tested: StoreUnderTest, content: bytes, error: str
) -> None:
    started(tested)
    tested.write(content)
    failed = tested.next()
    assert isinstance(failed, Failed)
    assert error in failed.reason
    assert str(tested.path) in failed.reason
    tested.write(text(FILE))
    event = tested.next()
    while isinstance(event, (Failed, Recovered)):
        event = tested.next()
    assert isinstance(event, Configured)


def test_an_entry_that_is_spoiled_leaves_its_node_as_it_was_and_others_change(tested: StoreUnderTest) -> None:
    started(tested)
    moved = {**TWO, "PublicIP": "192.0.2.22"}
    tested.write(text(FILE, nodes=[{**ONE, "Subnet": "10.5.1.7/24"}, moved]))
    assert isinstance(tested.next(), Configured)
    held, listed = tested.next(), tested.next()
    assert isinstance(held, Held)
    assert held.lease.endpoints[0].public_ip == parse_ip("192.0.2.22")
    assert listed == Listed({LEASE1.key: LEASE1, LEASE2.key: held.lease})


def test_a_typing_error_in_the_own_entry_changes_nothing(tested: StoreUnderTest) -> None:
    started(tested)
    tested.write(text(FILE, nodes=[ONE, {**TWO, "Subnet": "10.5.1.0/24"}]))
    assert isinstance(tested.next(), Configured)
    assert tested.next() == Held(LEASE2)
    assert tested.next() == Listed({LEASE1.key: LEASE1, LEASE2.key: LEASE2})


def test_a_node_whose_own_entry_is_at_fault_from_the_beginning_is_reported_with_the_reason(
    tested: StoreUnderTest,
) -> None:
    tested.write(text(FILE, nodes=[ONE, {**TWO, "Subnet": "10.6.2.0/24"}]))
    tested.start()
    assert tested.next() == Failed(f"{tested.path}: nodes[1].Subnet: 10.6.2.0/24 is not in 10.5.0.0/16")


def test_a_name_that_the_file_does_not_have_is_reported_and_no_other_node_taken(tested: StoreUnderTest) -> None:
    tested.store = StaticStore(str(tested.path), "three", "one", lambda: {parse_ip("192.0.2.1")})
    tested.write(text(FILE))
    tested.start()
    failed = tested.next()
    assert isinstance(failed, Failed)
    assert "has no node named 'three', as --node-name or NODE_NAME says; it has one, two" in failed.reason


@pytest.mark.parametrize(("host", "lease"), [("two", LEASE2), ("host", LEASE1)])
def test_without_a_name_the_host_s_counts_or_its_address(tested: StoreUnderTest, host: str, lease: Lease) -> None:
    tested.store = StaticStore(str(tested.path), "", host, lambda: {parse_ip("192.0.2.1"), parse_ip("127.0.0.1")})
    tested.write(text(FILE))
    tested.store.register(Node("vxlan", 7, ()))
    tested.start()
    assert isinstance(tested.next(), Configured)
    assert tested.next() == Held(lease)


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tested: StoreUnderTest) -> None:
    os.mkfifo(tested.path)
    tested.start()
    assert tested.next() == Failed(f"{tested.path}: not a regular file")
    tested.write(text(FILE))
    assert [type(tested.next()) for _ in range(2)] == [Recovered, Configured]


def test_a_file_that_is_not_there_is_reported_once_and_read_when_it_comes(tested: StoreUnderTest) -> None:
    tested.store.register(Node("vxlan", 7, ()))
    tested.start()
    failed = tested.next()
    assert isinstance(failed, Failed)
    assert failed.reason.count(str(tested.path)) == 1
    assert "No such file" in failed.reason
    tested.write(text(FILE))
    assert [type(tested.next()) for _ in range(2)] == [Recovered, Configured]


def test_a_host_that_gets_its_address_later_is_found_without_a_change_of_the_file(tested: StoreUnderTest) -> None:
    tested.store = StaticStore(str(tested.path), "", "host", lambda: tested.addresses)
    tested.write(text(FILE))
    tested.store.register(Node("vxlan", 7, ()))
    tested.start()
    assert isinstance(tested.next(), Failed)
    tested.addresses = {parse_ip("192.0.2.1")}
    event = tested.next()
    while isinstance(event, (Failed, Recovered)):
        event = tested.next()
    assert isinstance(event, Configured)
    assert tested.next() == Held(LEASE1)
