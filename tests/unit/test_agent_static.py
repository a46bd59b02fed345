"""The static store: a file that tells all nodes."""

from __future__ import annotations

import json
import os
import queue
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.leases import Lease, Node, Way, derived_mac
from cni.agent.stores import static
from cni.agent.stores.static import StaticStore, parse_nodes
from cni.agent.stores.store import Configured, Failed, Held, Listed
from cni.spec.address import parse_ip, parse_mac, parse_net
from cni.spec.errors import InvalidConfig, Undecodable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.agent.stores.store import News

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


def way(number: int, mac: bytes | None) -> Way:
    return Way(parse_net(f"10.5.{number}.0/24"), parse_ip(f"192.0.2.{number}"), mac)


LEASE1 = Lease((way(1, derived_mac(parse_ip("192.0.2.1"), 7)),), "vxlan", 7)
LEASE2 = Lease((way(2, parse_mac(MAC)),), "vxlan", 7)


def test_each_node_has_a_lease_and_without_a_mac_address_a_derived_one() -> None:
    nodes = parse_nodes(text(FILE), "nodes.json")
    assert [(one.name, one.lease) for one in nodes.entries] == [("one", LEASE1), ("two", LEASE2)]
    assert nodes.leases() == {"10.5.1.0-24": LEASE1, "10.5.2.0-24": LEASE2}
    assert nodes.config.backend.vni == 7


def test_both_families_have_their_ways() -> None:
    one, two = parse_nodes(text(DUAL), "nodes.json").entries
    assert one.lease.key == "10.5.1.0-24&fd00:5:0:1::-64"
    assert [way.mac for way in one.lease.ways] == [
        derived_mac(parse_ip("192.0.2.1"), 7),
        derived_mac(parse_ip("2001:db8::1"), 7),
    ]
    assert [way.mac for way in two.lease.ways] == [parse_mac(MAC)] * 2


def test_with_host_gw_nobody_has_a_mac_address() -> None:
    nodes = parse_nodes(text(FILE, Backend={"Type": "host-gw"}), "nodes.json")
    assert [one.lease for one in nodes.entries] == [
        Lease((way(1, None),), "host-gw"),
        Lease((way(2, None),), "host-gw"),
    ]


def test_keys_are_read_in_any_case() -> None:
    upper = {**FILE, "nodes": [{key.upper(): value for key, value in node.items()} for node in (ONE, TWO)]}
    assert parse_nodes(text(upper), "it") == parse_nodes(text(FILE), "it")


def test_without_nodes_there_are_none() -> None:
    assert parse_nodes(text({key: FILE[key] for key in ("Network", "Backend")}), "it").entries == ()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": ""}, "nodes[1].name: missing"),
        ({"name": "one"}, "nodes: 'one' is there more than once"),
        ({"PublicIP": None}, "nodes[1].PublicIP: missing"),
        ({"PublicIP": "2001:db8::2"}, "nodes[1].PublicIP: has to be of IPv4"),
        ({"PublicIP": "two.example"}, "nodes[1].PublicIP: 'two.example' is not an IP address"),
        ({"Subnet": None}, "nodes[1].Subnet: missing"),
        ({"Subnet": "10.5.2.0"}, "nodes[1].Subnet: '10.5.2.0' has no prefix length (as in 10.5.2.0/24)"),
        ({"Subnet": "10.5.2.1/24"}, "nodes[1].Subnet: 10.5.2.1/24 has bits behind its prefix, is it 10.5.2.0/24?"),
        ({"Subnet": "fd00::/64"}, "nodes[1].Subnet: has to be of IPv4"),
        ({"VtepMAC": "01:00:5e:00:00:01"}, "nodes[1].VtepMAC: '01:00:5e:00:00:01' is a group or null address"),
    ],
)
def test_what_is_wrong_with_a_node_is_told_with_its_path(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        parse_nodes(text(FILE, nodes=[ONE, {**TWO, **changed}]), "nodes.json")
    assert told in refused.value.message


@pytest.mark.parametrize("nodes", ["two", {"two": TWO}, [TWO, "two"], [[]]])
def test_nodes_are_a_list_of_objects(nodes: Any) -> None:
    with pytest.raises(InvalidConfig, match=r"nodes.*: expected (a list|an object)"):
        parse_nodes(text(FILE, nodes=nodes), "nodes.json")


def test_faults_of_the_network_are_told_with_those_of_nodes() -> None:
    with pytest.raises(InvalidConfig, match=r"Backend\.Type: 'udp' .*nodes\[0\]\.name: missing"):
        parse_nodes(text(FILE, Backend={}, nodes=[{**ONE, "name": None}]), "nodes.json")
    with pytest.raises(Undecodable, match=r"nodes\.json is not JSON"):
        parse_nodes(b"{", "nodes.json")


def test_of_nodes_with_the_same_subnet_the_later_bears_its_name() -> None:
    same = [ONE, *({**TWO, "name": name, "Subnet": "10.5.1.0/24"} for name in ("two", "three"))]
    nodes = parse_nodes(text(FILE, nodes=same), "nodes.json")
    assert [*nodes.leases()] == ["10.5.1.0-24", "10.5.1.0-24 of two", "10.5.1.0-24 of three"]


def test_the_own_node_is_found_by_its_name_else_by_its_address() -> None:
    nodes = parse_nodes(text(FILE), "nodes.json")
    one, two = nodes.entries
    assert nodes.own("two", set()) == two
    assert nodes.own("two", {parse_ip("192.0.2.1")}) == two
    assert nodes.own("host", {parse_ip("192.0.2.1"), parse_ip("127.0.0.1")}) == one
    assert nodes.own("host", {parse_ip("127.0.0.1")}) is None


class Telling:
    """A store on a file, and what it tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.addresses = {parse_ip("127.0.0.1")}
        self.heard: queue.Queue[News] = queue.Queue()
        self.store = StaticStore(str(path), "two", lambda: self.addresses)

    def start(self) -> None:
        self.store.start(self.heard.put)

    def next(self) -> News:
        return self.heard.get(timeout=20)

    def write(self, content: bytes) -> None:
        """As programs should, in one piece."""
        beside = self.path.with_suffix(".new")
        beside.write_bytes(content)
        os.rename(beside, self.path)


@pytest.fixture
def telling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telling]:
    monkeypatch.setattr(static, "LOOK_SECONDS", 0.01)
    found = Telling(tmp_path / "nodes.json")
    yield found
    found.store.present(Node("vxlan", 7, ()))
    found.store.close()


def test_the_network_is_told_first_and_the_rest_once_the_node_is_presented(telling: Telling) -> None:
    telling.write(text(FILE))
    telling.start()
    configured = telling.next()
    assert configured == Configured(parse_nodes(text(FILE), "").config, (parse_ip("192.0.2.2"),))
    assert telling.heard.empty()
    telling.store.present(Node("vxlan", 7, ()))
    assert telling.next() == Held(LEASE2)
    assert telling.next() == Listed({LEASE1.key: LEASE1, LEASE2.key: LEASE2})


def started(telling: Telling) -> None:
    """It has told all of the usual file."""
    telling.write(text(FILE))
    telling.store.present(Node("vxlan", 7, ()))
    telling.start()
    assert [type(telling.next()) for _ in range(3)] == [Configured, Held, Listed]


def test_a_file_that_changed_is_told_anew(telling: Telling) -> None:
    started(telling)
    three = {"name": "three", "PublicIP": "192.0.2.3", "Subnet": "10.5.3.0/24"}
    telling.write(text(FILE, nodes=[TWO, three]))
    assert isinstance(telling.next(), Configured)
    assert telling.next() == Held(LEASE2)
    listed = telling.next()
    assert isinstance(listed, Listed)
    assert [*listed.leases] == ["10.5.2.0-24", "10.5.3.0-24"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b'{"Network":', "is not JSON"),
        (text(FILE, Backend={}), "'udp' is not supported"),
        (text(FILE, nodes=[ONE]), "has no node named 'two', and none with an address of this host"),
    ],
)
def test_a_file_that_is_wrong_is_told_and_what_was_told_stays(telling: Telling, content: bytes, told: str) -> None:
    started(telling)
    telling.write(content)
    failed = telling.next()
    assert isinstance(failed, Failed)
    assert told in failed.why
    assert str(telling.path) in failed.why
    telling.write(text(FILE))
    found = telling.next()
    while isinstance(found, Failed):
        found = telling.next()
    assert isinstance(found, Configured)


def test_a_file_that_is_not_there_is_told_once_and_read_when_it_comes(telling: Telling) -> None:
    telling.store.present(Node("vxlan", 7, ()))
    telling.start()
    failed = telling.next()
    assert isinstance(failed, Failed)
    assert failed.why.count(str(telling.path)) == 1
    assert "No such file" in failed.why
    telling.write(text(FILE))
    assert isinstance(telling.next(), Configured)


def test_a_host_that_gets_its_address_later_is_found_without_a_change_of_the_file(telling: Telling) -> None:
    telling.store = StaticStore(str(telling.path), "host", lambda: telling.addresses)
    telling.write(text(FILE))
    telling.store.present(Node("vxlan", 7, ()))
    telling.start()
    assert isinstance(telling.next(), Failed)
    telling.addresses = {parse_ip("192.0.2.1")}
    found = telling.next()
    while isinstance(found, Failed):
        found = telling.next()
    assert isinstance(found, Configured)
    assert telling.next() == Held(LEASE1)
