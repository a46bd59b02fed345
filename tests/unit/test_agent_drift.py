"""Tests which notifications of the kernel contradict the desired state, and which are echoes or unrelated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.agent.controllers.drift import Drift
from cni.agent.dataplane.devices import parse_link_state
from cni.agent.dataplane.state import PROTOCOL, NextHopLinks, forwarding_state
from cni.agent.model.lease import Endpoint
from cni.kernel import nft, nft_rules, rtnl, rtnl_overlay
from cni.kernel.netlink import address, attribute, text, u32
from cni.protocol.address import parse_ip, parse_mac, parse_net

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message
    from cni.protocol.address import IP, Net

DEVICE, WIRE, OTHER = 7, 3, 99
MAC, PEER_MAC = parse_mac("0a:00:00:00:00:01"), parse_mac("0a:00:00:00:00:02")
OWN, LINK_LOCAL = parse_net("10.5.1.0/32"), parse_net("fe80::1/64")
NET, FIRST, VTEP = parse_net("10.5.2.0/24"), parse_ip("10.5.2.0"), parse_ip("192.0.2.2")


@pytest.fixture
def drift() -> Drift:
    drift = Drift("podwired")
    drift.networks = frozenset([parse_net("10.5.0.0/16")])
    drift.searches = False
    drift.links = {
        DEVICE: parse_link_state(link(DEVICE, "flannel.1", tunnel=TUNNEL), (OWN,)),
        WIRE: parse_link_state(link(WIRE, "eth0", PEER_MAC, 1500), (parse_net("192.0.2.1/24"),)),
    }
    drift.devices = {DEVICE: 4}
    drift.desired = {4: forwarding_state([Endpoint(NET, VTEP, PEER_MAC)], NextHopLinks(DEVICE, ()))}
    return drift


def link(
    index: int, name: str, mac: bytes = MAC, mtu: int = 1450, *, up: bool = True, tunnel: bytes = b"", master: int = 0
) -> bytes:
    head = rtnl.IFINFO.pack(0, 1, index, rtnl.IFF_UP if up else 0, 0)
    head += text(rtnl.IFLA_IFNAME, name) + attribute(rtnl.IFLA_ADDRESS, mac) + u32(rtnl.IFLA_MTU, mtu)
    return head + tunnel + (u32(rtnl.IFLA_MASTER, master) if master else b"")


def tunnel_from(local: str) -> bytes:
    """Returns the tunnel's attributes in a message about its device."""
    info = rtnl_overlay.VxlanInfo(1, WIRE, parse_ip(local), 8472, learning=False, gbp=False)
    message = rtnl_overlay.set_vxlan("x", info)[2]
    return message[len(rtnl.IFINFO.pack(0, 0, 0, 0, 0) + text(rtnl.IFLA_IFNAME, "x")) :]


TUNNEL = tunnel_from("192.0.2.1")


def test_a_link_that_is_as_wanted_is_an_echo(drift: Drift) -> None:
    assert drift.disturbed(rtnl.RTM_NEWLINK, link(DEVICE, "flannel.1", tunnel=TUNNEL)) == ""
    assert drift.disturbed(rtnl.RTM_NEWLINK, link(WIRE, "eth0", PEER_MAC, 1500)) == ""


@pytest.mark.parametrize(
    "changed",
    [
        link(DEVICE, "flannel.1", tunnel=TUNNEL, up=False),
        link(DEVICE, "flannel.1", tunnel=TUNNEL, mtu=1400),
        link(DEVICE, "flannel.1", tunnel=TUNNEL, mac=PEER_MAC),
        link(DEVICE, "flannel.1", tunnel=TUNNEL, master=9),
        link(DEVICE, "flannel.1", tunnel=tunnel_from("192.0.2.7")),
        link(DEVICE, "renamed", tunnel=TUNNEL),
    ],
)
def test_a_link_that_is_not_as_wanted_disturbs(drift: Drift, changed: bytes) -> None:
    assert drift.disturbed(rtnl.RTM_NEWLINK, changed) == "flannel.1 has changed"


def test_a_link_that_goes_or_comes_back_disturbs(drift: Drift) -> None:
    assert drift.disturbed(rtnl.RTM_DELLINK, link(DEVICE, "flannel.1")) == "flannel.1 is gone"
    assert drift.disturbed(rtnl.RTM_NEWLINK, link(OTHER, "flannel.1")) == "a link came"


def test_links_of_containers_come_and_go_unnoticed(drift: Drift) -> None:
    for kind in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK):
        assert drift.disturbed(kind, link(OTHER, "veth0")) == ""
    assert drift.disturbed(rtnl.RTM_DELLINK, link(OTHER, "flannel.1")) == ""


@pytest.mark.parametrize(
    ("kind", "index", "address", "disturbance"),
    [
        (rtnl.RTM_NEWADDR, DEVICE, OWN, ""),
        (rtnl.RTM_DELADDR, DEVICE, OWN, "flannel.1 has lost 10.5.1.0/32"),
        (rtnl.RTM_NEWADDR, DEVICE, parse_net("10.5.9.1/32"), "flannel.1 has got 10.5.9.1/32"),
        (rtnl.RTM_DELADDR, DEVICE, parse_net("10.5.9.1/32"), ""),
        (rtnl.RTM_NEWADDR, DEVICE, LINK_LOCAL, ""),
        (rtnl.RTM_DELADDR, DEVICE, LINK_LOCAL, ""),
        (rtnl.RTM_DELADDR, WIRE, parse_net("192.0.2.1/24"), "eth0 has lost 192.0.2.1/24"),
        (rtnl.RTM_NEWADDR, OTHER, parse_net("10.5.1.1/24"), ""),
    ],
)
def test_addresses_disturb_where_they_are_not_as_wanted(
    drift: Drift, kind: int, index: int, address: Net, disturbance: str
) -> None:
    payload = rtnl.new_address(index, address, 0)[2]
    assert drift.disturbed(kind, payload) == disturbance


def test_while_an_interface_is_searched_for_any_address_may_be_it(drift: Drift) -> None:
    payload = rtnl.new_address(OTHER, parse_net("192.0.2.9/24"), 0)[2]
    assert (drift.disturbed(rtnl.RTM_NEWADDR, payload), Drift("podwired").disturbed(rtnl.RTM_NEWADDR, payload)) == (
        "",
        "an address came",
    )


def route(**other: object) -> bytes:
    wanted = {"dst": NET, "gw": FIRST, "ifindex": DEVICE, "protocol": PROTOCOL, "on_link": True}
    return rtnl_overlay.set_route(**(wanted | other))[2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "payload", "disturbs"),
    [
        (rtnl.RTM_NEWROUTE, route(), False),
        (rtnl_overlay.RTM_DELROUTE, route(), True),
        (rtnl.RTM_NEWROUTE, route(gw=VTEP), True),
        (rtnl.RTM_NEWROUTE, route(ifindex=WIRE), True),
        (rtnl.RTM_NEWROUTE, route(on_link=False), True),
        (rtnl.RTM_NEWROUTE, route(dst=parse_net("10.5.3.0/24")), True),
        (rtnl_overlay.RTM_DELROUTE, route(dst=parse_net("10.5.3.0/24")), False),
        (rtnl.RTM_NEWROUTE, route(dst=parse_net("10.5.3.0/24"), ifindex=WIRE), True),
        (rtnl.RTM_NEWROUTE, route(dst=parse_net("10.5.3.0/24"), ifindex=WIRE, protocol=3), False),
        (rtnl.RTM_NEWROUTE, route(dst=parse_net("10.5.3.0/24"), protocol=3), True),
        (rtnl.RTM_NEWROUTE, route(dst=parse_net("fd00::/64"), gw=parse_ip("fd00::"), ifindex=WIRE), False),
    ],
)
def test_routes_disturb_where_they_are_not_as_wanted(
    drift: Drift, kind: int, payload: bytes, *, disturbs: bool
) -> None:
    assert bool(drift.disturbed(kind, payload)) is disturbs


NEIGHBOUR, PLACE = rtnl_overlay.set_neighbour, rtnl_overlay.set_fdb_entry


@pytest.mark.parametrize(
    ("message", "is_present", "gone"),
    [
        (NEIGHBOUR(DEVICE, FIRST, PEER_MAC), False, True),
        (NEIGHBOUR(DEVICE, FIRST, MAC), True, True),
        (NEIGHBOUR(DEVICE, VTEP, MAC), True, False),
        (NEIGHBOUR(OTHER, FIRST, MAC), False, False),
        (PLACE(DEVICE, VTEP, PEER_MAC), False, True),
        (PLACE(DEVICE, FIRST, PEER_MAC), True, False),
        (PLACE(DEVICE, VTEP, MAC), True, False),
        (PLACE(OTHER, VTEP, MAC), False, False),
    ],
)
def test_entries_disturb_where_they_are_not_as_wanted(
    drift: Drift, message: Message, *, is_present: bool, gone: bool
) -> None:
    _, _, payload = message
    assert bool(drift.disturbed(rtnl_overlay.RTM_NEWNEIGH, payload)) is is_present
    assert bool(drift.disturbed(rtnl_overlay.RTM_DELNEIGH, payload)) is gone


@pytest.mark.parametrize(("ip", "disturbs"), [(FIRST, True), (VTEP, False)])
def test_an_entry_that_does_not_last_disturbs_only_where_one_is_wanted(drift: Drift, ip: IP, *, disturbs: bool) -> None:
    """The kernel learns neighbours by itself where it may."""
    reachable = bytearray(NEIGHBOUR(DEVICE, ip, PEER_MAC)[2])
    reachable[8:10] = (2).to_bytes(2, "little")
    assert bool(drift.disturbed(rtnl_overlay.RTM_NEWNEIGH, bytes(reachable))) is disturbs


def test_a_neighbour_that_is_told_to_be_gone_without_its_mac_address_disturbs(drift: Drift) -> None:
    payload = rtnl_overlay.NDMSG.pack(rtnl.AF_INET, DEVICE, 0x20, 0, 0) + address(rtnl_overlay.NDA_DST, FIRST)
    assert drift.disturbed(rtnl_overlay.RTM_DELNEIGH, payload) == "an entry for 10.5.2.0 has changed"


def test_before_anything_is_wanted_nothing_disturbs() -> None:
    drift = Drift("podwired")
    for kind, _, payload in (
        NEIGHBOUR(DEVICE, FIRST, MAC),
        rtnl_overlay.set_route(NET, FIRST, DEVICE, 80, on_link=True),
    ):
        assert drift.disturbed(kind, payload) == ""
    assert drift.disturbed(rtnl.RTM_NEWLINK, link(DEVICE, "flannel.1", tunnel=TUNNEL)) == ""
    assert drift.disturbed(12345, b"") == ""


def test_a_device_whose_tables_could_not_be_asked_for_yet_disturbs_nothing() -> None:
    drift = Drift("podwired")
    drift.devices[DEVICE] = 4
    assert drift.disturbed(*NEIGHBOUR(DEVICE, FIRST, MAC)[::2]) == ""


def test_of_nftables_what_makes_and_unmakes_rules_disturbs_and_elements_do_not(drift: Drift) -> None:
    """A new rule may be a container's own; who adds one to podwired's chain is found when all is looked after."""
    subsystem = nft.NFNL_SUBSYS_NFTABLES << 8
    own = nft.NFGENMSG.pack(1, 0, 0) + text(1, "podwired")
    disturbing = {kind for kind in range(256) if drift.rules_disturbed(subsystem | kind, own)}
    # nf_tables_msg_types of linux/netfilter/nf_tables.h: tables' 2, chains' 3 and 5, rules' 8
    assert disturbing == {2, 3, 5, 8}
    assert disturbing == {
        nft.NFT_MSG_DELTABLE,
        nft_rules.NFT_MSG_NEWCHAIN,
        nft_rules.NFT_MSG_DELCHAIN,
        nft_rules.NFT_MSG_DELRULE,
    }
    assert not any(drift.rules_disturbed(1 << 8 | kind, own) for kind in range(256))
    theirs = nft.NFGENMSG.pack(1, 0, 0) + text(1, "kube-proxy")
    assert not any(drift.rules_disturbed(subsystem | kind, theirs) for kind in range(256))


def test_elements_of_the_agents_own_table_disturb_and_those_of_containers_do_not(drift: Drift) -> None:
    subsystem = nft.NFNL_SUBSYS_NFTABLES << 8
    own, containers = (nft.NFGENMSG.pack(1, 0, 0) + text(1, name) for name in ("podwired", "podwire"))
    disturbing = {kind for kind in range(256) if drift.elements_disturbed(subsystem | kind, own)}
    assert disturbing == {nft.NFT_MSG_NEWSETELEM, nft.NFT_MSG_DELSETELEM}
    assert not any(drift.elements_disturbed(subsystem | kind, containers) for kind in range(256))


def test_a_link_that_gets_an_address_of_the_nodes_subnet_has_pods_behind_it(drift: Drift) -> None:
    drift.subnets = (parse_net("10.5.1.0/24"),)
    _, _, elsewhere = rtnl.new_address(OTHER, parse_net("10.6.1.1/24"), 0)
    _, _, own = rtnl.new_address(OTHER, parse_net("10.5.1.1/24"), 0)
    _, _, tunnels = rtnl.new_address(DEVICE, parse_net("10.5.1.0/32"), 0)
    for kind, payload in (
        (rtnl.RTM_NEWADDR, elsewhere),
        (rtnl.RTM_DELADDR, own),
        (rtnl.RTM_NEWADDR, tunnels),
    ):
        assert drift.disturbed(kind, payload) == ""
        assert not drift.take_pods()
    assert drift.disturbed(rtnl.RTM_NEWADDR, own) == ""
    assert drift.take_pods()
    assert not drift.take_pods()


def test_the_ports_are_those_of_tunnels(drift: Drift) -> None:
    device = drift.links[DEVICE]
    assert device.tunnel is not None
    drift.links[DEVICE] = device._replace(tunnel=device.tunnel._replace(port=4789))
    assert drift.ports == {4789}


def test_while_an_interface_is_searched_for_a_default_route_may_tell_which(drift: Drift) -> None:
    default = rtnl_overlay.set_route(parse_net("0.0.0.0/0"), VTEP, WIRE, 3, on_link=False)
    assert drift.disturbed(rtnl.RTM_NEWROUTE, default[2]) == ""
    drift.searches = True
    assert drift.disturbed(rtnl.RTM_NEWROUTE, default[2]) == "a default route came or went"


POD_NETWORK, OWN_SUBNET = parse_net("10.5.0.0/16"), parse_net("10.5.1.0/24")


def connected(dst: str, index: int = OTHER) -> bytes:
    """A route without a gateway."""
    net = parse_net(dst)
    return rtnl_overlay.delete_route(net, None, index, 2)[2]


@pytest.mark.parametrize(
    ("dst", "disturbs"),
    [
        ("10.5.3.0/24", True),
        ("10.5.3.128/25", True),
        ("10.0.0.0/8", True),
        ("10.5.1.0/24", False),  # this node's pods
        ("10.5.1.128/25", False),
        ("10.5.3.7/32", False),  # a container's
        ("172.16.0.0/16", False),
    ],
)
@pytest.mark.parametrize("kind", [rtnl.RTM_NEWROUTE, rtnl_overlay.RTM_DELROUTE])
def test_a_local_network_among_the_pods_networks_disturbs_on_any_interface(
    drift: Drift, kind: int, dst: str, *, disturbs: bool
) -> None:
    drift.spaces = {4: (POD_NETWORK, OWN_SUBNET)}
    assert bool(drift.disturbed(kind, connected(dst))) is disturbs


def test_with_direct_routes_every_network_of_the_node_disturbs_but_those_of_containers(drift: Drift) -> None:
    drift.routes_directly = True
    assert drift.disturbed(rtnl.RTM_NEWROUTE, connected("172.16.0.0/16")) == "172.16.0.0/16 came or went"
    assert drift.disturbed(rtnl.RTM_NEWROUTE, connected("10.5.1.7/32")) == ""


def test_a_link_whose_network_matters_disturbs_as_it_goes_down_or_away(drift: Drift) -> None:
    """The kernel does not tell of the IPv4 routes that go with it."""
    drift.other_links = frozenset([OTHER])
    assert drift.disturbed(rtnl.RTM_NEWLINK, link(OTHER, "cni0")) == ""
    assert drift.disturbed(rtnl.RTM_NEWLINK, link(OTHER, "cni0", up=False)) == "a network of this node went"
    assert drift.disturbed(rtnl.RTM_DELLINK, link(OTHER, "cni0")) == "a network of this node went"


def prioritized(priority: int, **other: object) -> bytes:
    return route(**other) + u32(rtnl.RTA_PRIORITY, priority)


@pytest.mark.parametrize(
    ("kind", "payload", "disturbs"),
    [
        (rtnl.RTM_NEWROUTE, prioritized(100, gw=VTEP, ifindex=WIRE, protocol=3), False),  # loses
        (rtnl_overlay.RTM_DELROUTE, prioritized(100, gw=VTEP, ifindex=WIRE, protocol=3), False),
        (rtnl.RTM_NEWROUTE, prioritized(100), True),  # with the agent's own number
        (rtnl_overlay.RTM_DELROUTE, route(gw=VTEP, ifindex=WIRE), False),
    ],
)
def test_a_route_of_others_to_a_peers_subnet_disturbs_if_it_wins(
    drift: Drift, kind: int, payload: bytes, *, disturbs: bool
) -> None:
    assert bool(drift.disturbed(kind, payload)) is disturbs


@pytest.mark.parametrize(("priority", "disturbs"), [(100, True), (1024, True), (2000, False)])
def test_in_ipv6_the_priority_of_the_agents_routes_is_1024(drift: Drift, priority: int, *, disturbs: bool) -> None:
    net = parse_net("fd00:5:0:2::/64")
    drift.devices = {DEVICE: 6}
    drift.desired = {6: forwarding_state([Endpoint(net, parse_ip("2001:db8::2"), PEER_MAC)], NextHopLinks(DEVICE, ()))}
    theirs = prioritized(priority, dst=net, gw=parse_ip("fe80::9"), ifindex=WIRE, protocol=3, on_link=False)
    assert bool(drift.disturbed(rtnl.RTM_NEWROUTE, theirs)) is disturbs
    ours = prioritized(1024, dst=net, gw=net.ip)
    assert drift.disturbed(rtnl.RTM_NEWROUTE, ours) == ""
    assert drift.disturbed(rtnl_overlay.RTM_DELROUTE, ours) != ""


def test_while_a_link_of_others_is_waited_for_any_that_goes_disturbs(drift: Drift) -> None:
    drift.waits_for_link = True
    assert drift.disturbed(rtnl.RTM_DELLINK, link(OTHER, "vxlan9")) == "a link went"
