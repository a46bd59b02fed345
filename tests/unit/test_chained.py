"""Chained plugins: errors of the configuration, operations from a previous result, and the result they return."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni import proc
from cni.config.portmap import PortMapping
from cni.plan.bandwidth import Ifb, TokenBucket, ifb_name
from cni.plan.loopback import LoopbackUp
from cni.plan.portmap import HostPort, LoopbackRouting
from cni.plugins import chained
from cni.plugins.bandwidth import Bandwidth
from cni.plugins.context import Call
from cni.plugins.loopback import Loopback
from cni.plugins.portmap import Portmap
from cni.protocol.address import IP, parse_ip, parse_net
from cni.protocol.errors import OperationFailed
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.request import parse_request
from cni.protocol.result import Interface, IPConfig, Result
from tests.calls import ENVIRONMENT, NETWORK, NOWHERE
from tests.machine import Machine, missing
from tests.unit.calls import call

if TYPE_CHECKING:
    from cni.effects.host import Host

CHAINED = ["portmap", "bandwidth", "firewall", "tuning"]
PREVIOUS: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "veth0"}, {"name": "eth0", "mac": "0a:00:00:00:00:01", "sandbox": NOWHERE}],
    "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 1}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"nameservers": ["10.1.2.1"]},
}
MAPPED = {"portMappings": [{"hostPort": 80, "containerPort": 8080}]}
LIMITED = {"ingressRate": 8000, "ingressBurst": 8000, "egressRate": 8000, "egressBurst": 8000}
OWNER = Owner("net", "c1", "eth0")
CONTAINER, HOST = Interface("eth0", "", NOWHERE), Interface("veth0", "")


@pytest.mark.parametrize("program", CHAINED)
@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_a_chained_plugin_is_not_the_first(program: str, command: str) -> None:
    expected = f"prevResult: missing, {program} must be called as chained plugin, after another"
    assert call(environment={"CNI_COMMAND": command}, program=program).error == (7, expected)


@pytest.mark.parametrize(
    ("program", "members", "errors"),
    [
        (
            "portmap",
            {"backend": "pf", "snat": 1, "runtimeConfig": {"portMappings": [{}]}, "prevResult": {"ips": 1}},
            [
                "backend: 'pf' is neither iptables nor nftables;",
                "snat: expected",
                "portMappings[0].hostPort: missing",
                "prevResult.ips: ",
            ],
        ),
        (
            "bandwidth",
            {"ingressRate": 8000, "egressBurst": "x", "prevResult": {"dns": 1}},
            ["ingressBurst: if ingressRate is set", "egressBurst: expected", "prevResult.dns: "],
        ),
        ("loopback", {"prevResult": {"cniVersion": "0.4.0"}}, ["prevResult.cniVersion: 0.4.0 is not"]),
    ],
)
def test_all_faults_are_reported_at_once_with_their_paths(
    program: str, members: dict[str, Any], errors: list[str]
) -> None:
    for command in ("ADD", "CHECK"):
        code, message = call(NETWORK | members, {"CNI_COMMAND": command}, program).error
        assert code == 7
        assert [error for error in errors if error not in message] == []


@pytest.mark.parametrize("program", ["portmap", "bandwidth"])
def test_status_tells_the_faults_of_the_configuration(program: str) -> None:
    config = NETWORK | {"snat": 1, "ingressRate": "x"}
    assert call(config, {"CNI_COMMAND": "STATUS"}, program).error[0] == 7


def test_status_asks_for_nft_where_ports_have_conditions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := missing():
        pytest.skip(reason)
    monkeypatch.setattr(proc, "find_system", lambda *_: None)

    def code(program: str, members: dict[str, Any]) -> int:
        answer = call(NETWORK | members, {"CNI_COMMAND": "STATUS"}, program)
        return int(answer.error[0]) if answer.status else 0

    with Machine() as machine:  # an ordinary user may not ask the host's nftables
        codes = {program: machine.call(code, program, {}) for program in ("portmap", "bandwidth", "loopback")}
        conditional = machine.call(code, "portmap", {"conditionsV4": ["ip", "saddr", "192.0.2.1"]})
    assert (codes, conditional) == ({"portmap": 0, "bandwidth": 0, "loopback": 0}, 50)


@pytest.mark.parametrize("program", ["bandwidth", "loopback"])
def test_who_enters_the_container_needs_its_namespace(program: str) -> None:
    gone = (8, f"cannot open CNI_NETNS '{NOWHERE}': No such file or directory")
    assert call(NETWORK | {"prevResult": PREVIOUS}, program=program).error == gone


def test_loopback_may_be_the_first() -> None:
    assert call(program="loopback").error[0] == 8


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_without_ports_the_earlier_answer_is_passed_on(version: str) -> None:
    previous = PREVIOUS | {"cniVersion": version}
    if version < "1":
        previous["ips"] = [ip | {"version": "4"} for ip in PREVIOUS["ips"]]
    answer = call(NETWORK | {"cniVersion": version, "prevResult": previous}, program="portmap")
    assert answer.status == 0
    assert answer.json == previous


def test_a_collection_without_a_list_touches_nothing() -> None:
    for program in (*CHAINED, "loopback"):
        answer = call(environment={"CNI_COMMAND": "GC"}, program=program)
        assert (answer.status, answer.stdout.writes) == (0, [])


NOTICE = "backend iptables: podwire maps ports in nftables, which serves the same traffic\n"


@pytest.mark.parametrize(("backend", "notice"), [("", ""), ("nftables", ""), ("iptables", NOTICE)])
def test_the_backend_iptables_is_served_with_a_notice(backend: str, notice: str) -> None:
    answer = call(NETWORK | {"prevResult": PREVIOUS, "backend": backend}, program="portmap")
    assert (answer.status, answer.stderr.text) == (0, notice)


class Routes:
    """A fake of rtnetlink in host and container: a veth pair of veth0 and eth0, and a bridge."""

    def __init__(self) -> None:
        self.rtnl = self.container_rtnl = self
        self.asked: list[IP] = []
        self.deleted: list[str] = []
        self.held: list[str] = []

    def link_to(self, ip: IP) -> Any:
        self.asked.append(ip)
        return SimpleNamespace(name="veth0", kind="veth")

    def find(self, name: str) -> Any:
        if name == "eth0":
            return SimpleNamespace(peer=7)
        kinds = {"veth0": (7, "veth"), "cni0": (3, "bridge"), "other": (9, "veth"), "macvlan": (7, "macvlan")}
        return SimpleNamespace(ifindex=kinds[name][0], kind=kinds[name][1]) if name in kinds else None

    def need(self, name: str) -> Any:
        return SimpleNamespace(mtu=65536 if name == "lo" else 1400)

    def links(self) -> list[Any]:
        links = [("ifb0", "ifb", "mine"), ("ifb1", "ifb", "other"), ("veth0", "veth", "mine"), ("cni0", "bridge", "")]
        return [SimpleNamespace(name=name, kind=kind, alias=alias) for name, kind, alias in links]

    def delete(self, name: str) -> None:
        self.deleted.append(name)

    def addresses(self, name: str) -> list[Any]:
        assert name == "lo"
        return [SimpleNamespace(address=parse_net(text)) for text in self.held]


def made(kind: type, routes: Routes, **members: Any) -> Any:
    """Returns the plugin of a call without configuration errors."""
    errors = ConfigErrors()
    request = parse_request(ENVIRONMENT)
    network = PluginConfig("net", "1.1.0", members, b"")
    plugin = kind(Call("", request, network, cast("Host", routes), str, print, print), errors)
    assert errors.messages == []
    return plugin


@pytest.mark.parametrize(
    ("ips", "chosen"),
    [
        ([("10.1.2.3/24", 1), ("10.1.2.4/24", 1)], "10.1.2.3"),
        ([("10.1.2.9/24", 0), ("10.1.2.3/24", 1)], "10.1.2.3"),
        ([("10.1.2.9/24", 2), ("10.1.2.3/24", 1)], "10.1.2.3"),
        ([("10.1.2.9/24", 3), ("10.1.2.3/24", 1)], "10.1.2.3"),
        ([("10.1.2.3/24", None)], "10.1.2.3"),
        ([("10.1.2.3/24", 4)], "10.1.2.3"),
        ([("10.1.2.3/24", -1)], "10.1.2.3"),
        ([("10.1.2.9/24", 0)], ""),
        ([], ""),
    ],
)
def test_ports_lead_to_the_containers_own_address(ips: list[tuple[str, int | None]], chosen: str) -> None:
    """An address of another interface, on the host or in the container, is skipped."""
    another, outside = Interface("eth1", "", NOWHERE), Interface("eth0", "")
    interfaces = (HOST, CONTAINER, another, outside)
    previous = Result(interfaces, tuple([IPConfig(parse_net(ip), interface=index) for ip, index in ips]))
    plugin = made(Portmap, Routes(), runtimeConfig=MAPPED)
    ports = [op.ip.text for op in plugin.operations(previous) if isinstance(op, HostPort)]
    assert ports == ([chosen] if chosen else [])


BOTH = Result((HOST, CONTAINER), (IPConfig(parse_net("2001:db8::3/64")), IPConfig(parse_net("10.1.2.3/24"))))


def test_ports_are_mapped_for_the_owner_and_loopback_is_routed_the_hosts_way() -> None:
    routes = Routes()
    operations = made(Portmap, routes, runtimeConfig=MAPPED).operations(BOTH)
    mapping = PortMapping("tcp", None, 0, 80, 8080)
    ports = [op for op in operations if isinstance(op, HostPort)]
    assert ports == [HostPort(mapping, parse_ip(ip), OWNER.label) for ip in ("10.1.2.3", "2001:db8::3")]
    assert [(op.interface, op.pair) for op in operations if isinstance(op, LoopbackRouting)] == [("veth0", True)]
    assert routes.asked == [parse_ip("10.1.2.3")]


def test_a_release_tells_which_way_loopback_was_routed() -> None:
    routes = Routes()
    plugin = made(Portmap, routes, runtimeConfig=MAPPED)
    operations, is_complete = plugin.released(BOTH)
    assert is_complete
    assert [type(op).__name__ for op in operations] == [
        "Hairpin",
        "HostPort",
        "PortOverlap",
        "Hairpin",
        "HostPort",
        "PortOverlap",
        "LoopbackRouting",
    ]
    assert routes.asked == [parse_ip("10.1.2.3")]


@pytest.mark.parametrize(("members", "previous"), [({"runtimeConfig": MAPPED}, Result()), ({}, BOTH)])
def test_a_release_without_mappings_or_addresses_is_not_complete(members: dict[str, Any], previous: Result) -> None:
    """DEL then searches for ports by their label."""
    assert made(Portmap, Routes(), **members).released(previous) == ((), False)


@pytest.mark.parametrize(("is_complete", "asked"), [(True, []), (False, [True])])
def test_del_searches_by_label_only_if_the_release_is_not_complete(
    is_complete: bool, asked: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[bool] = []
    monkeypatch.setattr(Loopback, "needs_netns", False)
    monkeypatch.setattr(Loopback, "released", lambda *_: ((), is_complete))
    monkeypatch.setattr(Loopback, "release_labelled", lambda _, matches: searches.append(matches(OWNER.label)))
    request = parse_request({**ENVIRONMENT, "CNI_COMMAND": "DEL"})
    host = cast("Host", SimpleNamespace(lock=SimpleNamespace(lock_shared=lambda: None)))
    chained.delete(Call("loopback", request, PluginConfig("net", "1.1.0", {}, b""), host, str, print, print))
    assert searches == asked


def test_without_mappings_no_way_is_asked() -> None:
    routes = Routes()
    assert made(Portmap, routes).operations(BOTH) == ()
    assert routes.asked == []


@pytest.mark.parametrize("names", [["veth0"], ["cni0", "other", "gone", "veth0"]])
def test_limits_are_set_on_the_containers_other_end(names: list[str]) -> None:
    previous = Result((*[Interface(name, "") for name in names], CONTAINER))
    plugin = made(Bandwidth, Routes(), **LIMITED)
    operations = plugin.operations(previous)
    assert [op.interface for op in operations if isinstance(op, TokenBucket)] == ["veth0", ifb_name(OWNER)]
    assert [(op.host_interface, op.paired) for op in operations if isinstance(op, Ifb)] == [("veth0", False)]
    answered = plugin.answer(previous).interfaces
    assert answered[:-1] == previous.interfaces
    assert (answered[-1].name, answered[-1].mtu) == (ifb_name(OWNER), 1400)


@pytest.mark.parametrize(
    "interfaces", [(), (CONTAINER,), (Interface("cni0", ""), CONTAINER), (Interface("macvlan", ""),)]
)
def test_what_is_no_pair_cannot_be_limited(interfaces: tuple[Interface, ...]) -> None:
    with pytest.raises(OperationFailed, match=r"names no veth peer of eth0 on the host"):
        made(Bandwidth, Routes(), **LIMITED).operations(Result(interfaces))


def test_without_limits_the_pair_is_not_looked_for() -> None:
    plugin = made(Bandwidth, Routes())
    assert plugin.operations(Result()) == ()
    assert plugin.answer(BOTH) == BOTH


def test_a_release_takes_the_detour_and_the_one_that_the_reference_made() -> None:
    """The reference's name is a hash (sha512) of network and container."""
    operations, _ = made(Bandwidth, Routes()).released(Result())
    names = [(op.name, op.paired) for op in operations if isinstance(op, Ifb)]
    assert names == [(ifb_name(OWNER), False), ("bwp623e1c388032", False)]


def test_a_collection_takes_detours_alone() -> None:
    """A veth pair with such a label belongs to the plugin that created it."""
    routes = Routes()
    made(Bandwidth, routes).release_labelled(lambda label: label == "mine")
    assert routes.deleted == ["ifb0"]


def test_one_limit_is_enough() -> None:
    previous = Result((HOST, CONTAINER))
    assert len(made(Bandwidth, Routes(), ingressRate=8000, ingressBurst=8000).operations(previous)) == 1
    assert len(made(Bandwidth, Routes(), egressRate=8000, egressBurst=8000).operations(previous)) == 3


def test_loopback_is_one_operation() -> None:
    plugin = made(Loopback, Routes())
    assert plugin.operations(Result()) == (LoopbackUp("lo", OWNER.label),)
    assert plugin.released(Result()) == ((LoopbackUp("lo", OWNER.label),), True)
    assert LoopbackUp("lo", "c1").describe() == "ip -n CONTAINER link set lo up"
    assert plugin.answer(BOTH) == BOTH


@pytest.mark.parametrize("previous", [Result((HOST,)), Result(ips=BOTH.ips)])
def test_loopback_repeats_an_earlier_answer(previous: Result) -> None:
    assert made(Loopback, Routes()).answer(previous) == previous


@pytest.mark.parametrize(
    ("held", "answered"),
    [
        (["127.0.0.1/8", "127.0.0.2/8", "::1/128"], ["127.0.0.1/8", "::1/128"]),
        (["::1/128", "127.0.0.1/8"], ["127.0.0.1/8", "::1/128"]),
        (["127.0.0.1/8"], ["127.0.0.1/8"]),
        ([], []),
    ],
)
def test_loopback_answers_with_the_first_address_of_each_family(held: list[str], answered: list[str]) -> None:
    routes = Routes()
    routes.held = held
    result = made(Loopback, routes).answer(Result())
    assert result == Result(
        (Interface("lo", "00:00:00:00:00:00", NOWHERE, (("mtu", 65536),)),),
        tuple([IPConfig(parse_net(text), interface=0) for text in answered]),
    )
