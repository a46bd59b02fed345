"""Port mappings as operations: which there are, for which family, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.config.netconf import parse_netconf
from cni.config.portmap import ALL, NOBODY, SUBNET, PortMapping, Ports, parse_ports
from cni.plan import operations as ops
from cni.plan import portmap
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.plan import plan_attachment
from cni.plan.portmap import Condition, Hairpin, HostPort, LoopbackRouting, PortOverlap
from cni.plan.vlan import VlanGateway
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.result import IPConfig, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.plan.operations import Operation
    from cni.protocol.address import Net

OWNER = Owner("net", "c1", "eth0")
V4, V6 = parse_net("10.1.2.3/24"), parse_net("2001:db8::3/64")
HTTP = {"hostPort": 80, "containerPort": 8080}
BOTH, ONLY4, ONLY6 = (PortMapping("tcp", None, family, 80, 8080) for family in (0, 4, 6))


def on(address: str) -> PortMapping:
    ip = parse_ip(address)
    return PortMapping("tcp", ip, ip.family, 80, 8080)


def planned(*mappings: PortMapping, toward: str = "cni0", **conf: Any) -> tuple[Operation, ...]:
    ports = Ports(mappings, **conf)
    back = portmap.loopback_routing(ports, (V4, V6), toward, OWNER.label)
    return portmap.operations(ports, (V4, V6), OWNER.label) + back


def attached(*addresses: str, **members: Any) -> list[Operation]:
    """The whole plan of an attachment whose runtime maps a port, in its order."""
    config = {"runtimeConfig": {"portMappings": [HTTP]}} | members
    conf = parse_netconf(PluginConfig("net", "1.1.0", config, b""), {}, ConfigErrors())
    lease = Result(ips=tuple([IPConfig(parse_net(address)) for address in addresses]))
    names = names_of(OWNER, None, lease)
    return list(plan_attachment(Attachment(OWNER, "", conf, Facts("node", None, ipv6=True), names, lease)).operations)


def kinds(operations: Sequence[Operation]) -> list[str]:
    return [type(op).__name__ for op in operations]


def test_without_mappings_nothing_is_done() -> None:
    assert planned(masqueraded=ALL, mark_bit=5, conditions4="iif lo") == ()
    assert not {"Hairpin", "HostPort", "LoopbackRouting"} & set(
        kinds(attached("10.1.2.3/24", runtimeConfig={}, masqAll=True))
    )


def test_a_port_of_both_families_leads_to_both_addresses() -> None:
    assert planned(BOTH) == (
        Hairpin(V4, everybody=False, label=OWNER.label),
        HostPort(BOTH, V4.ip, OWNER.label),
        PortOverlap((HostPort(BOTH, V4.ip, OWNER.label),)),
        Hairpin(V6, everybody=False, label=OWNER.label),
        HostPort(BOTH, V6.ip, OWNER.label),
        PortOverlap((HostPort(BOTH, V6.ip, OWNER.label),)),
        LoopbackRouting("cni0", V4, OWNER.label),
    )


@pytest.mark.parametrize(
    ("mapping", "ip"), [(ONLY4, V4), (ONLY6, V6), (on("192.0.2.1"), V4), (on("2001:db8:2::1"), V6), (on("::1"), V6)]
)
def test_a_port_of_one_family_leads_to_the_address_of_that_family(mapping: PortMapping, ip: Net) -> None:
    operations = planned(mapping)
    assert [op.ip for op in operations if isinstance(op, HostPort)] == [ip.ip]
    assert [op.address for op in operations if isinstance(op, Hairpin)] == [ip]


@pytest.mark.parametrize(("addresses", "families"), [((V4,), [4]), ((V6,), [6]), ((), []), ((V6, V4), [4, 6])])
def test_a_family_that_the_container_has_not_is_passed_over(addresses: tuple[Net, ...], families: list[int]) -> None:
    operations = portmap.operations(Ports((BOTH,)), addresses, OWNER.label)
    assert [op.ip.family for op in operations if isinstance(op, HostPort)] == families


def test_of_several_addresses_of_a_family_the_first_is_used() -> None:
    several = tuple(map(parse_net, ("2001:db8::9/64", "10.1.2.9/24", "10.1.2.4/16", "2001:db8::4/64")))
    operations = portmap.operations(Ports((BOTH,)), several, OWNER.label)
    assert [op.ip for op in operations if isinstance(op, HostPort)] == [several[1].ip, several[0].ip]
    assert [op.address for op in operations if isinstance(op, Hairpin)] == [several[1], several[0]]


def test_a_family_has_one_hairpin_for_all_its_ports() -> None:
    more = [BOTH._replace(host_port=port) for port in (80, 81, 82)]
    operations = planned(*more, on("192.0.2.1"))
    assert kinds(operations).count("Hairpin") == 2
    assert kinds(operations).count("HostPort") == 7
    assert kinds(operations).count("LoopbackRouting") == 1


@pytest.mark.parametrize(("masqueraded", "everybody"), [(SUBNET, [False, False]), (ALL, [True, True]), (NOBODY, [])])
def test_who_is_masqueraded_goes_through_a_hairpin(masqueraded: str, everybody: list[bool]) -> None:
    operations = planned(BOTH, masqueraded=masqueraded)
    assert [op.everybody for op in operations if isinstance(op, Hairpin)] == everybody
    assert kinds(operations).count("HostPort") == 2


@pytest.mark.parametrize(
    ("mapping", "masqueraded", "toward", "routed"),
    [
        (BOTH, SUBNET, "cni0", True),
        (BOTH, ALL, "cni0", True),
        (ONLY4, SUBNET, "veth0", True),
        (on("127.0.0.1"), SUBNET, "cni0", True),
        (on("127.9.9.9"), SUBNET, "cni0", True),
        (on("192.0.2.1"), SUBNET, "cni0", False),
        (on("::1"), SUBNET, "cni0", False),
        (ONLY6, SUBNET, "cni0", False),
        (BOTH, NOBODY, "cni0", False),
        (BOTH, SUBNET, "", False),
    ],
)
def test_loopback_is_routed_where_a_port_can_be_reached_by_it_and_answers_come_back(
    mapping: PortMapping, masqueraded: str, toward: str, routed: bool
) -> None:
    operations = planned(mapping, toward=toward, masqueraded=masqueraded)
    assert [op for op in operations if isinstance(op, LoopbackRouting)] == [
        LoopbackRouting(toward, V4, OWNER.label)
    ] * routed


def test_what_restrains_a_port_is_there_before_the_port() -> None:
    operations = planned(BOTH, BOTH._replace(host_port=81), conditions4="ip saddr 192.0.2.0/24", conditions6="iif lo")
    order = kinds(operations)
    for position, operation in enumerate(operations):
        if isinstance(operation, HostPort):
            assert operations[position - 1] == Condition(
                operation, "ip saddr 192.0.2.0/24" if operation.ip == V4.ip else "iif lo", 13
            )
    assert order.index("Hairpin") < order.index("Condition")
    assert order.count("Condition") == order.count("HostPort") == 4


def test_a_condition_of_one_family_leaves_the_other_alone() -> None:
    operations = planned(BOTH, conditions6="iif lo")
    assert [(op.port.ip, op.expression) for op in operations if isinstance(op, Condition)] == [(V6.ip, "iif lo")]


def test_another_bit_of_the_mark_is_a_condition_without_an_expression() -> None:
    """Its ports go through chains of that bit, in both families."""
    operations = [op for op in planned(BOTH, mark_bit=5) if isinstance(op, Condition)]
    assert [(op.port.ip, op.expression, op.mark_bit) for op in operations] == [(V4.ip, "", 5), (V6.ip, "", 5)]
    assert len({op.chain for op in operations}) == 1


def test_each_expression_and_bit_has_its_own_chain() -> None:
    port = HostPort(BOTH, V4.ip, OWNER.label)
    conditions = [(expression, bit) for expression in ("", "iif lo", "iif lo 1", "iif lo1") for bit in (1, 3, 13)]
    chains = {Condition(port, *condition).chain for condition in conditions}
    assert len(chains) == len(conditions)
    assert Condition(port, "iif lo", 13).chain == Condition(port._replace(ip=V6.ip), "iif lo", 13).chain
    assert all(chain.removeprefix("condition-").isalnum() and len(chain) < 32 for chain in chains)


@pytest.mark.parametrize("members", [{}, {"conditionsV4": ["iif lo"]}, {"masqAll": True}, {"markMasqBit": 5}])
@pytest.mark.parametrize("mode", ["bridged", "routed"])
def test_ports_are_open_before_the_first_packet_may_leave(members: dict[str, Any], mode: str) -> None:
    order = kinds(attached("10.1.2.3/24", "2001:db8::3/64", mode=mode, isGateway=True, ipMasq=True, **members))
    last = len(order) - 1 - order[::-1].index("HostPort")
    assert order.index("Veth") < order.index("Hairpin") < order.index("HostPort") <= last < order.index("ContainerUp")


@pytest.mark.parametrize(
    ("members", "interface"),
    [
        ({"isGateway": True}, "cni0"),
        ({"isGateway": True, "bridge": "br0"}, "br0"),
        ({"isGateway": True, "vlan": 5}, "cni0.5"),
        ({"mode": "routed"}, OWNER.host_interface),
    ],
)
def test_loopback_is_routed_over_the_interface_that_has_the_gateway_once_it_is_there(
    members: dict[str, Any], interface: str
) -> None:
    operations = attached("10.1.2.3/24", **members)
    (routing,) = [position for position, operation in enumerate(operations) if isinstance(operation, LoopbackRouting)]
    assert operations[routing].describe() == f"sysctl -w net.ipv4.conf.{interface}.route_localnet=1"
    positions = [
        position
        for position, operation in enumerate(operations)
        if interface in (getattr(operation, name, "") for name in ("name", "host_interface"))
        and isinstance(operation, (ops.Bridge, ops.Veth, VlanGateway))
    ]
    assert positions
    assert positions[0] < routing


def test_a_mapping_as_a_runtime_sends_it_ends_as_an_element() -> None:
    mapping: dict[str, Any] = {"HostPort": 53, "ContainerPort": 5353, "Protocol": "UDP", "HostIP": "2001:db8:2::1"}
    conf = parse_ports(Fields({"runtimeConfig": {"portMappings": [mapping]}}, "", ConfigErrors()))
    operations = portmap.operations(conf, (V4, V6), OWNER.label)
    assert [op.describe() for op in operations] == [
        "nft add element inet podwire hairpin6 { 2001:db8::3 : jump hairpin-2001_db8__/64 }",
        "at DEL: conntrack -D -p udp --orig-port-dst 53 --reply-src 2001:db8::3",
        "nft add element inet podwire hostip_hostports6 { 2001:db8:2::1 . udp . 53 : 2001:db8::3 . 5353 }",
        "nft list map inet podwire hostip_hostports6",
        "conntrack -D -p udp --orig-port-dst 53",
    ]


def test_flows_are_forgotten_when_their_port_is_there_and_when_it_is_gone() -> None:
    """ADD goes forwards, DEL backwards: a packet in between would bring the flow back."""
    udp = PortMapping("udp", None, 0, 53, 5353)
    order = kinds(planned(udp))
    for port in [index for index, kind in enumerate(order) if kind == "HostPort"]:
        assert order[port - 1] == "FlowsThroughMapping"
        assert order[port + 2] == "FlowsBeforeMapping"
