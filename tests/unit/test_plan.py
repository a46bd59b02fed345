"""Plans: what the golden cases do not say in their lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.config.netconf import NetConf, parse_netconf
from cni.plan import address, link
from cni.plan import operations as ops
from cni.plan.alias import parse_alias
from cni.plan.attachment import Attachment, Facts, Names, names_of
from cni.plan.masquerade import Masquerade
from cni.plan.plan import plan_attachment
from cni.plan.policy import PodRecord, PolicyPort
from cni.plan.sourcecheck import SourceGuard
from cni.plan.spoofcheck import SpoofGuard
from cni.plan.vlan import PortVlan, RemovePortVlan, VlanGateway
from cni.protocol.address import mac_text, parse_ip, parse_mac, parse_net
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.result import IPConfig, Result, Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.plan.operations import Operation

OWNER = Owner("net", "c1", "eth0")
FACTS = Facts("node", None, ipv6=True)


def conf_of(**members: Any) -> NetConf:
    return parse_netconf(PluginConfig("net", "1.1.0", members, b""), {}, ConfigErrors())


def attachment(*addresses: str, routes: Sequence[Route] = (), facts: Facts = FACTS, **members: Any) -> Attachment:
    lease = Result(ips=tuple([IPConfig(parse_net(address)) for address in addresses]), routes=tuple(routes))
    return Attachment(OWNER, "/run/netns/c1", conf_of(**members), facts, names_of(OWNER, None, lease), lease)


def operations(*addresses: str, **members: Any) -> tuple[Operation, ...]:
    return plan_attachment(attachment(*addresses, **members)).operations


def only(kind: type, planned: Sequence[Operation]) -> list[Any]:
    return [op for op in planned if isinstance(op, kind)]


EVERYTHING: dict[str, Any] = {
    "isDefaultGateway": True,
    "ipMasq": True,
    "vlan": 5,
    "hairpinMode": True,
    "macspoofchk": True,
    "ipSpoofCheck": True,
    "ingressRate": 8000,
    "ingressBurst": 8000,
    "egressRate": 8000,
    "egressBurst": 8000,
    "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}]},
}


def test_every_operation_describes_itself_in_one_line() -> None:
    planned = operations("10.1.2.3/24", "2001:db8::3/64", **EVERYTHING)
    routed = operations("10.1.2.3/24", mode="routed")
    kinds = {kind for kind in vars(ops).values() if isinstance(kind, type) and "describe" in vars(kind)}
    assert kinds <= {type(op) for op in planned + routed}
    lines = [op.describe() for op in planned + routed]
    assert all(line.isprintable() and line == line.strip() for line in lines)
    assert len({op.describe() for op in planned}) == len(planned)


def test_the_same_attachment_has_the_same_plan() -> None:
    assert operations("10.1.2.3/24", ipMasq=True) == operations("10.1.2.3/24", ipMasq=True)


def test_rules_are_in_place_before_the_first_packet_may_leave() -> None:
    order = [type(op) for op in operations("10.1.2.3/24", isGateway=True, ipMasq=True, macspoofchk=True)]
    for earlier, later in (
        (ops.Bridge, ops.Veth),
        (ops.Veth, SpoofGuard),
        (SpoofGuard, ops.ContainerUp),
        (Masquerade, ops.ContainerUp),
        (ops.ContainerSysctl, ops.ContainerAddress),
        (ops.ContainerAddress, ops.ContainerUp),
        (ops.GatewayAddress, ops.WaitReady),
    ):
        assert order.index(earlier) < order.index(later)
    assert order[-1] is ops.WaitReady


def test_a_bridge_that_is_there_keeps_its_address() -> None:
    facts = Facts("node", b"\x0a\0\0\0\0\x09", ipv6=True)
    assert plan_attachment(attachment(facts=facts)).result.interfaces[0].mac == "0a:00:00:00:00:09"


def test_a_bridge_that_podwire_made_is_known_by_its_address() -> None:
    planned = plan_attachment(attachment(facts=Facts("node", None, ipv6=True))).result.interfaces[0].mac
    again = plan_attachment(attachment(facts=Facts("node", parse_mac(planned), ipv6=True)))
    assert mac_text(only(ops.Bridge, again.operations)[0].mac) == planned


def test_bridges_of_one_name_on_two_nodes_have_two_addresses() -> None:
    macs = {plan_attachment(attachment(facts=Facts(node, None, ipv6=True))).result.interfaces[0].mac for node in "ab"}
    assert len(macs) == 2


def test_a_chosen_mac_address_is_the_containers_alone() -> None:
    chosen = names_of(OWNER, b"\x0a\0\0\0\0\x01", Result())
    assert chosen == Names(OWNER.host_interface, OWNER.host_mac, b"\x0a\0\0\0\0\x01")


@pytest.mark.parametrize(
    ("text", "gateway"),
    [("10.1.2.3/24", "10.1.2.1"), ("10.1.2.3/8", "10.0.0.1"), ("2001:db8::3/64", "2001:db8::1")],
)
def test_a_gateway_that_nobody_named_has_the_first_address(text: str, gateway: str) -> None:
    plan = plan_attachment(attachment(text, isGateway=True))
    assert plan.result.ips == (IPConfig(parse_net(text), parse_ip(gateway), 2),)
    assert [op.address.ip for op in only(ops.GatewayAddress, plan.operations)] == [parse_ip(gateway)]


def test_without_a_gateway_nothing_is_named_or_forwarded() -> None:
    plan = plan_attachment(attachment("10.1.2.3/24"))
    assert plan.result.ips[0].gateway is None
    assert only(ops.GatewayAddress, plan.operations) == only(ops.Forwarding, plan.operations) == []


def test_each_family_is_forwarded_once() -> None:
    planned = operations("2001:db8::3/64", "10.1.2.3/24", "10.1.2.4/24", isGateway=True)
    assert [op.family for op in only(ops.Forwarding, planned)] == [4, 6]


@pytest.mark.parametrize(
    ("route", "implied"),
    [
        (Route(parse_net("0.0.0.0/0")), False),
        (Route(parse_net("0.0.0.0/0"), parse_ip("10.1.2.9")), False),
        (Route(parse_net("0.0.0.0/0"), table=100), True),
        (Route(parse_net("::/0")), True),
        (Route(parse_net("0.0.0.0/1")), True),
    ],
)
def test_a_default_route_is_implied_where_none_is_given(route: Route, implied: bool) -> None:
    plan = plan_attachment(attachment("10.1.2.3/24", routes=[route], isDefaultGateway=True))
    default = Route(parse_net("0.0.0.0/0"), parse_ip("10.1.2.1"))
    assert plan.result.routes == ((route, default) if implied else (route,))


def test_two_addresses_of_a_family_have_one_default_route() -> None:
    plan = plan_attachment(attachment("10.1.2.3/24", "10.1.2.4/24", isDefaultGateway=True))
    assert len(plan.result.routes) == len(only(ops.ContainerRoute, plan.operations)) == 1


def test_a_route_without_gateway_of_its_family_is_on_the_link() -> None:
    planned = operations("10.1.2.3/24", routes=[Route(parse_net("2001:db8::/32"))], isGateway=True)
    assert [op.route.gw for op in only(ops.ContainerRoute, planned)] == [None]


@pytest.mark.parametrize(
    ("scope", "gateway"), [(None, "10.1.2.1"), (0, "10.1.2.1"), (200, "10.1.2.1"), (253, None), (254, None)]
)
def test_a_route_that_is_asked_to_be_on_the_link_gets_no_gateway(scope: int | None, gateway: str | None) -> None:
    planned = operations("10.1.2.3/24", routes=[Route(parse_net("10.9.0.0/16"), scope=scope)], isGateway=True)
    assert [op.route.gw for op in only(ops.ContainerRoute, planned)] == [gateway and parse_ip(gateway)]


def test_the_address_feature_alone_names_no_gateway() -> None:
    """It is the plan that fills them in, before any feature is asked."""
    planned = address.operations(attachment("10.1.2.3/24", isGateway=True))
    assert only(ops.GatewayAddress, planned) == only(ops.Forwarding, planned) == []


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"vlan": 5}, ["vid 1", "vid 5 pvid untagged"]),
        ({"vlan": 5, "preserveDefaultVlan": True}, ["vid 5 pvid untagged"]),
        ({"vlan": 1}, ["vid 1 pvid untagged"]),
        ({"vlanTrunk": [{"id": 7}]}, ["vid 7"]),
        ({"vlan": 5, "vlanTrunk": [{"minID": 2, "maxID": 9}]}, ["vid 1", "vid 2-9", "vid 5 pvid untagged"]),
        ({"vlan": 5, "vlanTrunk": [{"minID": 1, "maxID": 9}]}, ["vid 1-9", "vid 5 pvid untagged"]),
        ({"vlan": 5, "vlanTrunk": [{"id": 1}]}, ["vid 1", "vid 5 pvid untagged"]),
    ],
)
def test_the_native_vlan_stays_native_and_no_vlan_is_both_wanted_and_removed(
    members: dict[str, Any], expected: list[str]
) -> None:
    planned = [op for op in operations(**members) if isinstance(op, (PortVlan, RemovePortVlan))]
    assert [op.describe().partition(f"{OWNER.host_interface} ")[2] for op in planned] == expected
    wanted = {vid for op in only(PortVlan, planned) for vid in range(op.first, op.last + 1)}
    assert wanted.isdisjoint([op.vid for op in only(RemovePortVlan, planned)])


def test_a_vlans_gateway_belongs_to_bridge_and_vlan() -> None:
    planned = {only(VlanGateway, operations("10.1.2.3/24", isGateway=True, vlan=vlan))[0] for vlan in (5, 5, 4094)}
    assert len(planned) == len({op.mac for op in planned}) == len({op.port for op in planned}) == 2
    assert all(len(op.port) <= 15 for op in planned)


def test_a_vlan_without_gateway_needs_no_further_interface() -> None:
    plan = plan_attachment(attachment("10.1.2.3/24", vlan=5))
    assert only(VlanGateway, plan.operations) == []
    assert len(plan.result.interfaces) == 3


def test_who_gets_an_address_next_has_its_mac_address_too() -> None:
    """Neighbours' caches stay true when the address has another owner."""
    lease = Result(ips=(IPConfig(parse_net("10.1.2.3/24")),))
    other = OWNER._replace(container_id="another")
    assert names_of(OWNER, None, lease).container_mac == names_of(other, None, lease).container_mac
    assert names_of(OWNER, None, Result()).container_mac != names_of(other, None, Result()).container_mac
    assert (
        names_of(OWNER._replace(network="n2"), None, lease).container_mac != names_of(OWNER, None, lease).container_mac
    )


@pytest.mark.parametrize(
    ("addresses", "members", "announced"),
    [
        (["10.1.2.3/24"], {}, False),
        (["10.1.2.3/24", "2001:db8::3/64"], {}, True),
        (["10.1.2.3/24"], {"args": {"cni": {"mac": "0a:00:00:00:00:01"}}}, True),
        (["10.1.2.3/24"], {"capabilities": {"mac": True}}, True),
        ([], {}, False),
    ],
)
def test_addresses_that_do_not_tell_the_mac_address_are_announced(
    addresses: list[str], members: dict[str, Any], announced: bool
) -> None:
    (ready,) = only(ops.WaitReady, operations(*addresses, **members))
    assert ready.announce is announced


@pytest.mark.parametrize(("enabled", "waits"), [(True, True), (False, False)])
def test_duplicate_detection_is_waited_for_where_it_runs(enabled: bool, waits: bool) -> None:
    planned = operations("2001:db8::3/64", enabledad=enabled)
    assert [op.detect_duplicates for op in only(ops.WaitReady, planned)] == [waits]
    assert [op.detect_duplicates for op in only(ops.ContainerAddress, planned)] == [waits]


def test_an_ipv6_address_cannot_do_without_its_settings() -> None:
    needed = [op.key for op in only(ops.ContainerSysctl, operations("2001:db8::3/64")) if op.required]
    assert needed == ["net/ipv6/conf/lo/disable_ipv6", "net/ipv6/conf/eth0/disable_ipv6"]
    assert not any(op.required for op in only(ops.ContainerSysctl, operations("10.1.2.3/24")))


def test_the_link_says_whose_it_is_and_what_is_masqueraded() -> None:
    (veth,) = only(ops.Veth, operations("10.1.2.3/24", ipMasq=True))
    assert veth.alias == f"{OWNER.label}; masqueraded; addresses 10.1.2.3/24"
    (masquerade,) = only(Masquerade, operations("10.1.2.3/24", ipMasq=True))
    assert masquerade.label == OWNER.label
    assert only(ops.Veth, operations("10.1.2.3/24"))[0].alias == OWNER.label


def test_the_guard_says_whose_it_is() -> None:
    (guard,) = only(SpoofGuard, operations(macspoofchk=True))
    assert (guard.host_interface, guard.mac, guard.label) == (OWNER.host_interface, OWNER.container_mac, OWNER.label)


@pytest.mark.parametrize(("ipam", "asking"), [("host-local", []), ("dhcp", ["0.0.0.0"])])
def test_a_container_on_a_bridge_may_send_from_its_addresses_and_that_of_its_mac_address(
    ipam: str, asking: list[str]
) -> None:
    given = ["10.1.2.3/24", "10.1.2.4/24", "2001:db8::3/64", "10.1.2.3/24"]
    planned = operations(*given, ipSpoofCheck=True, ipam={"type": ipam})
    (guard,) = only(SourceGuard, planned)
    own = link.link_local(only(ops.Veth, planned)[0].mac).ip.text
    assert [ip.text for ip in guard.sources] == ["10.1.2.3", "10.1.2.4", "2001:db8::3", *asking, own]
    assert (guard.host_interface, guard.routed, guard.label) == (OWNER.host_interface, False, OWNER.label)


def test_of_a_routed_container_no_addresses_are_listed() -> None:
    """There the host's routes tell which are its own."""
    (guard,) = only(SourceGuard, operations("10.1.2.3/24", mode="routed", ipSpoofCheck=True))
    assert (guard.sources, guard.routed) == ((), True)


@pytest.mark.parametrize(("members", "in_alias"), [({}, True), ({"portIsolation": True}, False)])
def test_a_port_that_is_isolated_for_policies_tells_so_unless_it_always_is(
    members: dict[str, bool], *, in_alias: bool
) -> None:
    planned = operations("10.1.2.3/24", facts=FACTS._replace(isolated=True), **members)
    assert only(ops.BridgePort, planned) == [ops.BridgePort(OWNER.host_interface, hairpin=False, isolated=True)]
    assert parse_alias(only(ops.Veth, planned)[0].alias).isolated == in_alias


@pytest.mark.parametrize(
    ("members", "ports"),
    [({"isGateway": True}, 1), ({"isGateway": True, "portIsolation": True}, 0), ({"isGateway": False}, 0)],
)
def test_the_port_of_a_pod_follows_podwired_where_it_may_be_isolated(members: dict[str, bool], ports: int) -> None:
    facts = FACTS._replace(pod=PodRecord(OWNER.label, "shop", "db"), isolated=True)
    planned = operations("10.1.2.3/24", facts=facts, **members)
    followed = only(PolicyPort, planned)
    assert len(followed) == ports
    for op in followed:
        assert op.describe() == f"bridge link set dev {OWNER.host_interface} isolated on, or as podwired asks now"
        assert op.alias.text == only(ops.Veth, planned)[0].alias
        assert planned.index(op) > planned.index(only(ops.BridgePort, planned)[0])


@pytest.mark.parametrize("mode", ["bridged", "routed"])
def test_sources_are_checked_before_the_container_can_send(mode: str) -> None:
    planned = [type(op) for op in operations("10.1.2.3/24", mode=mode, ipSpoofCheck=True)]
    assert planned.index(ops.Veth) < planned.index(SourceGuard) < planned.index(ops.ContainerUp)


def test_check_and_del_know_the_sources_of_add() -> None:
    """The MAC address may have changed, and the IPAM plugin, too."""
    whole = attachment("10.1.2.3/24", ipSpoofCheck=True)
    known = (parse_ip("fe80::7"),)
    (guard,) = only(
        SourceGuard,
        plan_attachment(whole._replace(names=whole.names._replace(further_sources=known))).operations,
    )
    assert guard.sources == (parse_ip("10.1.2.3"), *known)


@pytest.mark.parametrize(("family", "key"), [(4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")])
def test_forwarding_is_a_setting_of_its_family(family: int, key: str) -> None:
    assert ops.Forwarding(family).key == key


def test_without_ipv6_in_the_kernel_nothing_of_it_is_set() -> None:
    facts = FACTS._replace(ipv6=False)
    planned = plan_attachment(attachment("10.1.2.3/24", facts=facts, isGateway=True, vlan=5)).operations
    assert only(VlanGateway, planned)
    assert only(ops.IgnoreAdvertisements, planned) == []
    assert not any("ipv6" in setting.key for setting in only(ops.ContainerSysctl, planned))


def test_routers_are_followed_on_demand() -> None:
    keys = [setting.key for setting in only(ops.ContainerSysctl, operations("2001:db8::3/64", acceptRA=True))]
    assert not any(key.endswith(("accept_ra", "autoconf")) for key in keys)
    assert any(key.endswith("keep_addr_on_down") for key in keys)


def test_a_disabled_interface_is_not_set_up() -> None:
    planned = operations(disableContainerInterface=True)
    assert only(ops.ContainerUp, planned) + only(ops.WaitReady, planned) == []
