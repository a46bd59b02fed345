"""The routed mode, also as ptp: each container behind a gateway of its own on the host's end of its pair."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.config.netconf import parse_netconf
from cni.plan import operations as ops
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.forward_accept import Accept
from cni.plan.link import link_local
from cni.plan.masquerade import Masquerade
from cni.plan.plan import Plan, plan_attachment
from cni.plan.routed import HostAddress, HostRoute
from cni.plan.spoofcheck import SpoofGuard
from cni.plan.vlan import VlanGateway
from cni.protocol.address import mac_text, parse_ip, parse_mac, parse_net
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.result import Interface, IPConfig, Result, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

OWNER = Owner("net", "c1", "eth0")
HOST = OWNER.host_interface
V4, V6 = "10.1.2.3/24", "2001:db8::3/64"


def plan(*addresses: str, program: str = "podwire", routes: Sequence[Route] = (), **members: Any) -> Plan:
    """ADDRESS/PREFIX, or ADDRESS/PREFIX,GATEWAY."""
    config: dict[str, Any] = {"mode": "routed"} | members
    conf = parse_netconf(PluginConfig("net", "1.1.0", config, b""), {}, ConfigErrors(), program)
    ips = []
    for text in addresses:
        address, _, gateway = text.partition(",")
        ips.append(IPConfig(parse_net(address), parse_ip(gateway) if gateway else None))
    lease = Result(ips=tuple(ips), routes=tuple(routes))
    facts = Facts("node", b"\x0a\0\0\0\0\x09", ipv6=True)
    return plan_attachment(Attachment(OWNER, "/run/netns/c1", conf, facts, names_of(OWNER, None, lease), lease))


def only(kind: type, planned: Plan) -> list[Any]:
    return [op for op in planned.operations if isinstance(op, kind)]


def lines(kind: type, planned: Plan) -> list[str]:
    return [op.describe() for op in only(kind, planned)]


def test_there_is_a_pair_and_no_bridge() -> None:
    routed = plan(V4, V6, isGateway=True, ipMasq=True, mtu=1400, bridge="br0")
    kinds = {type(op) for op in routed.operations}
    assert kinds.isdisjoint({ops.Bridge, ops.BridgePort, ops.GatewayAddress, VlanGateway, SpoofGuard})
    (veth,) = only(ops.Veth, routed)
    assert (veth.host_interface, veth.ifname, veth.bridge, veth.mtu) == (HOST, "eth0", "", 1400)
    assert " master " not in veth.describe()


@pytest.mark.parametrize("program", ["podwire", "ptp"])
def test_the_answer_names_both_ends_and_the_gateways(program: str) -> None:
    result = plan(V4, V6, program=program).result
    names = names_of(OWNER, None, Result(ips=(IPConfig(parse_net(V4)),)))
    assert result.interfaces == (
        Interface(HOST, mac_text(OWNER.host_mac)),
        Interface("eth0", mac_text(names.container_mac), "/run/netns/c1"),
    )
    assert result.ips == (
        IPConfig(parse_net(V4), parse_ip("10.1.2.1"), 1),
        IPConfig(parse_net(V6), parse_ip("2001:db8::1"), 1),
    )


def test_a_container_with_a_subnet_of_one_address_has_no_gateway() -> None:
    """As DEL may plan it; ADD rejects such a lease."""
    routed = plan("10.1.2.3/32")
    assert routed.result.ips == (IPConfig(parse_net("10.1.2.3/32"), None, 1),)
    assert only(ops.ContainerRoute, routed) == only(HostAddress, routed) == []
    assert only(HostRoute, routed) == [HostRoute(HOST, parse_ip("10.1.2.3"))]


def test_all_that_the_container_sends_to_its_subnet_passes_its_gateway() -> None:
    """The kernel's own route to the subnet would have it ask on the pair for neighbours that are elsewhere."""
    routed = plan(V4, V6)
    assert [op.subnet_on_link for op in only(ops.ContainerAddress, routed)] == [False, False]
    assert lines(ops.ContainerRoute, routed) == [
        "ip -n CONTAINER route add 10.1.2.1/32 dev eth0 src 10.1.2.3",
        "ip -n CONTAINER route add 10.1.2.0/24 via 10.1.2.1 dev eth0 src 10.1.2.3",
        "ip -n CONTAINER route add 2001:db8::1/128 dev eth0 src 2001:db8::3",
        "ip -n CONTAINER route add 2001:db8::/64 via 2001:db8::1 dev eth0 src 2001:db8::3",
    ]


def test_a_bridged_container_finds_its_subnet_on_the_link() -> None:
    routed = plan(V4, mode="bridged")
    assert [op.subnet_on_link for op in only(ops.ContainerAddress, routed)] == [True]
    assert only(ops.ContainerRoute, routed) == only(HostRoute, routed) == only(HostAddress, routed) == []


def test_the_host_has_the_gateways_and_one_way_to_each_address() -> None:
    routed = plan(V4, V6)
    assert lines(HostAddress, routed) == [
        f"ip addr add 10.1.2.1/32 dev {HOST}",
        f"ip addr add 2001:db8::1/128 dev {HOST}",
        f"ip addr add {link_local(OWNER.host_mac).text} dev {HOST}",
    ]
    assert lines(HostRoute, routed) == [
        f"ip route add 10.1.2.3 dev {HOST}",
        f"ip route add 2001:db8::3 dev {HOST}",
    ]
    assert [op.family for op in only(ops.Forwarding, routed)] == [4, 6]


@pytest.mark.parametrize("members", [{"isGateway": False}, {"isGateway": True}, {"isDefaultGateway": True}])
@pytest.mark.parametrize("program", ["podwire", "ptp"])
def test_the_host_is_the_gateway_whatever_the_configuration_says(members: dict[str, Any], program: str) -> None:
    routed, plain = plan(V4, program=program, **members), plan(V4)
    for kind in (HostAddress, HostRoute, ops.Forwarding):
        assert only(kind, routed) == only(kind, plain) != []


def test_ipv4_alone_needs_no_address_of_the_link() -> None:
    assert lines(HostAddress, plan(V4)) == [f"ip addr add 10.1.2.1/32 dev {HOST}"]


@pytest.mark.parametrize(
    ("mac", "text"),
    [
        ("1a:76:fd:21:f9:f3", "fe80::1876:fdff:fe21:f9f3/64"),
        ("02:00:00:00:00:01", "fe80::ff:fe00:1/64"),
        ("00:00:5e:00:53:01", "fe80::200:5eff:fe00:5301/64"),
    ],
)
def test_the_address_of_the_link_follows_from_the_mac_address(mac: str, text: str) -> None:
    assert link_local(parse_mac(mac)).text == text


def test_a_gateway_that_the_allocator_names_is_kept() -> None:
    routed = plan("10.1.2.3/24,10.1.2.254")
    assert [ip.gateway for ip in routed.result.ips] == [parse_ip("10.1.2.254")]
    assert lines(HostAddress, routed) == [f"ip addr add 10.1.2.254/32 dev {HOST}"]
    assert "via 10.1.2.254" in lines(ops.ContainerRoute, routed)[1]


def test_a_gateway_outside_the_subnet_is_reached_over_the_link() -> None:
    routed = plan("10.1.2.3/32,169.254.1.1")
    assert lines(ops.ContainerRoute, routed)[0] == "ip -n CONTAINER route add 169.254.1.1/32 dev eth0 src 10.1.2.3"
    assert lines(HostAddress, routed) == [f"ip addr add 169.254.1.1/32 dev {HOST}"]


def test_two_addresses_of_a_subnet_share_their_gateway_and_are_reached_both() -> None:
    routed = plan("10.1.2.3/24", "10.1.2.4/24")
    assert len(only(HostAddress, routed)) == len(only(ops.Forwarding, routed)) == 1
    assert [op.ip.text for op in only(HostRoute, routed)] == ["10.1.2.3", "10.1.2.4"]


def test_two_addresses_of_a_subnet_have_one_way_to_each_destination_from_the_first() -> None:
    """A second one would be refused in IPv6, and in IPv4 be preferred to the first."""
    routes = only(ops.ContainerRoute, plan("10.1.2.3/24", "10.1.2.4/24", "2001:db8::3/64", "2001:db8::4/64"))
    assert [(route.route.dst.text, route.source.text) for route in routes] == [
        ("10.1.2.1/32", "10.1.2.3"),
        ("10.1.2.0/24", "10.1.2.3"),
        ("2001:db8::1/128", "2001:db8::3"),
        ("2001:db8::/64", "2001:db8::3"),
    ]


def test_addresses_of_two_subnets_have_a_gateway_each() -> None:
    routes = only(ops.ContainerRoute, plan("10.1.2.3/24", "10.1.3.3/24"))
    assert [route.source.text for route in routes] == ["10.1.2.3", "10.1.2.3", "10.1.3.3", "10.1.3.3"]


@pytest.mark.parametrize(("program", "count"), [("podwire", 1), ("ptp", 0)])
def test_a_default_route_is_implied_for_podwire_alone(program: str, count: int) -> None:
    """The reference ptp has no such key."""
    routed = plan(V4, program=program, isDefaultGateway=True)
    assert len(routed.result.routes) == count
    assert sum("0.0.0.0/0 via 10.1.2.1" in line for line in lines(ops.ContainerRoute, routed)) == count


def test_a_leased_route_is_set_when_its_gateway_can_be_reached() -> None:
    routed = plan(V4, routes=[Route(parse_net("0.0.0.0/0")), Route(parse_net("10.9.0.0/16"), parse_ip("10.1.2.9"))])
    assert lines(ops.ContainerRoute, routed)[2:] == [
        "ip -n CONTAINER route add 0.0.0.0/0 via 10.1.2.1 dev eth0",
        "ip -n CONTAINER route add 10.9.0.0/16 via 10.1.2.9 dev eth0",
    ]


def test_each_step_comes_when_it_can_be_taken() -> None:
    order = [type(op) for op in plan(V4, V6, ipMasq=True, isDefaultGateway=True).operations]
    for earlier, later in (
        (ops.Veth, ops.ContainerAddress),
        (Masquerade, ops.ContainerUp),
        (ops.ContainerAddress, ops.ContainerUp),
        (ops.ContainerUp, ops.ContainerRoute),
        (HostAddress, HostRoute),
        (HostRoute, ops.Forwarding),
        (ops.Forwarding, ops.WaitReady),
    ):
        last = len(order) - 1 - order[::-1].index(earlier)
        assert last < order.index(later)
    assert order[-1] is ops.WaitReady


def test_without_addresses_there_is_a_pair_alone() -> None:
    """As DEL plans it where nobody knows of a lease."""
    routed = plan()
    kinds = {type(op) for op in routed.operations}
    assert ops.Veth in kinds
    assert kinds.isdisjoint({HostAddress, HostRoute, ops.ContainerRoute, ops.Forwarding})


def test_the_drop_in_is_the_routed_mode_and_leaves_the_hosts_firewall_to_others() -> None:
    members: dict[str, Any] = {"ipMasq": True, "mtu": 1400}
    dropped_in, routed = plan(V4, V6, program="ptp", mode="", **members), plan(V4, V6, **members)
    assert dropped_in.result == routed.result
    assert set(routed.operations) - set(dropped_in.operations) == set(only(Accept, routed))
    assert [op for op in routed.operations if not isinstance(op, Accept)] == list(dropped_in.operations)
    assert len(only(Accept, routed)) == 1
