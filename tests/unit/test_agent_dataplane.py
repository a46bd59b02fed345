"""The data plane's tables, and the messages that make one of them another: tried on a model of the kernel's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane.state import (
    PROTOCOL,
    ForwardingState,
    NextHop,
    NextHopLinks,
    difference,
    forwarding_state,
    is_ours,
)
from cni.agent.model.lease import Endpoint
from cni.kernel import rtnl, rtnl_overlay
from cni.kernel.netlink import NLM_F_REPLACE
from cni.kernel.rtnl import AF_BRIDGE
from cni.protocol.address import IP, Net, parse_ip, parse_mac, parse_net
from tests.unit.strategies import seeds

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

DEVICE, WIRE = 7, 3
FAR = NextHopLinks(DEVICE, ())
MIXED = NextHopLinks(DEVICE, ((parse_net("192.0.2.0/24"), WIRE),))
WIRE_ALONE = NextHopLinks(0, MIXED.host_routes)


def endpoint(subnet: str, ip: str, mac: str = "02") -> Endpoint:
    return Endpoint(parse_net(subnet), parse_ip(ip), parse_mac(f"0a:00:00:00:00:{mac}") if mac else None)


class Kernel:
    """A model of the kernel: each message replaces or deletes one entry."""

    def __init__(self, start: ForwardingState) -> None:
        self.state = ForwardingState()
        self.state.replace(self.state, start)

    def take(self, message: Message) -> None:
        kind, flags, payload = message
        assert bool(flags & NLM_F_REPLACE) == (kind in (rtnl.RTM_NEWROUTE, rtnl_overlay.RTM_NEWNEIGH))
        if kind in (rtnl.RTM_NEWROUTE, rtnl_overlay.RTM_DELROUTE):
            self._take_route(kind, payload)
        elif payload[0] == AF_BRIDGE:
            self._take_forwarding(kind, payload)
        else:
            self._take_neighbour(kind, payload)

    def _take_route(self, kind: int, payload: bytes) -> None:
        route = rtnl_overlay.parse_kernel_route(payload)
        assert route.main
        assert route.gw is not None
        if kind == rtnl.RTM_NEWROUTE:
            assert route.protocol == PROTOCOL
            self.state.routes[route.dst] = NextHop(route.gw, route.ifindex, route.on_link)
            return
        current = self.state.routes[route.dst]
        if (current.gw, current.ifindex) == (route.gw, route.ifindex):
            del self.state.routes[route.dst]

    def _take_neighbour(self, kind: int, payload: bytes) -> None:
        entry = rtnl_overlay.parse_neighbour(payload)
        assert entry is not None
        assert (entry.ifindex, entry.permanent) == (DEVICE, True)
        if kind == rtnl_overlay.RTM_NEWNEIGH:
            self.state.neighbours[entry.ip] = entry.mac
        else:
            del self.state.neighbours[entry.ip]

    def _take_forwarding(self, kind: int, payload: bytes) -> None:
        """A unicast address has one place at most (drivers/net/vxlan, vxlan_fdb_update_existing)."""
        entry = rtnl_overlay.parse_neighbour(payload)
        assert entry is not None
        assert (entry.ifindex, entry.permanent) == (DEVICE, True)
        if kind == rtnl_overlay.RTM_DELNEIGH:
            self.state.fdb.remove((entry.mac, entry.ip))
            return
        assert any(entry.mac)
        self.state.fdb = {pair for pair in self.state.fdb if pair[0] != entry.mac}
        self.state.fdb.add((entry.mac, entry.ip))


def same(state: ForwardingState, other: ForwardingState) -> bool:
    return (state.routes, state.neighbours, state.fdb) == (other.routes, other.neighbours, other.fdb)


def made(actual: ForwardingState, wanted: ForwardingState, links: NextHopLinks = FAR) -> ForwardingState:
    """Returns the state after the changes."""
    kernel = Kernel(actual)
    for message in difference(actual, wanted, links):
        kernel.take(message)
    return kernel.state


def test_a_subnet_behind_the_tunnel_has_the_three_entries_of_flannel() -> None:
    state = forwarding_state([endpoint("10.5.2.0/24", "192.0.2.2")], FAR)
    first, mac = parse_ip("10.5.2.0"), parse_mac("0a:00:00:00:00:02")
    assert state.routes == {parse_net("10.5.2.0/24"): NextHop(first, DEVICE, on_link=True)}
    assert state.neighbours == {first: mac}
    assert state.fdb == {(mac, parse_ip("192.0.2.2"))}
    assert state.unreachable == []


def test_a_subnet_on_the_same_wire_has_a_route_alone() -> None:
    for links, mac in ((MIXED, "02"), (WIRE_ALONE, "")):
        state = forwarding_state([endpoint("10.5.2.0/24", "192.0.2.2", mac)], links)
        assert state.routes == {parse_net("10.5.2.0/24"): NextHop(parse_ip("192.0.2.2"), WIRE, on_link=False)}
        assert (state.neighbours, state.fdb, state.unreachable) == ({}, set(), [])


def test_without_a_tunnel_what_is_on_no_wire_is_reported_and_left_out() -> None:
    unreachable = endpoint("10.5.2.0/24", "198.51.100.2", "")
    state = forwarding_state([unreachable], WIRE_ALONE)
    assert state.unreachable == [unreachable]
    assert same(state, ForwardingState())


def test_where_all_is_as_it_should_be_nothing_is_sent() -> None:
    state = forwarding_state(
        [endpoint("10.5.2.0/24", "192.0.2.2"), endpoint("10.5.3.0/24", "198.51.100.3", "03")], MIXED
    )
    assert difference(state, state, MIXED) == []


@pytest.mark.parametrize(
    "after",
    [
        endpoint("10.5.2.0/24", "192.0.2.2", "22"),
        endpoint("10.5.2.0/24", "192.0.2.22", "02"),
        endpoint("10.5.2.0/24", "192.0.2.22", "22"),
        endpoint("10.5.22.0/24", "192.0.2.2", "02"),
    ],
)
def test_a_peer_that_changed_leaves_no_old_entry(after: Endpoint) -> None:
    before, other = endpoint("10.5.2.0/24", "192.0.2.2", "02"), endpoint("10.5.3.0/24", "192.0.2.3", "03")
    old, new = forwarding_state([before, other], FAR), forwarding_state([after, other], FAR)
    assert same(made(old, new), new)
    alone = forwarding_state([before], FAR), forwarding_state([after], FAR)
    assert len(difference(*alone, FAR)) <= 6
    assert [rtnl_overlay.described(change) for change in difference(*alone, FAR)] == [
        rtnl_overlay.described(change) for change in difference(old, new, FAR)
    ]


def test_a_peer_that_comes_nearer_leaves_the_tunnel() -> None:
    behind, near = (
        forwarding_state([endpoint("10.5.2.0/24", "198.51.100.2")], MIXED),
        forwarding_state([endpoint("10.5.2.0/24", "192.0.2.2")], MIXED),
    )
    assert same(made(behind, near, MIXED), near)
    assert same(made(near, behind, MIXED), behind)


def test_nothing_is_flooded() -> None:
    """Frames whose address is not known go to the places of the null address."""
    wanted = forwarding_state([endpoint("10.5.2.0/24", "192.0.2.2")], FAR)
    actual = forwarding_state([endpoint("10.5.2.0/24", "192.0.2.2")], FAR)
    actual.fdb |= {(bytes(6), parse_ip("192.0.2.2")), (bytes(6), parse_ip("192.0.2.9"))}
    assert same(made(actual, wanted), wanted)


def test_a_route_is_made_after_its_entries_and_goes_before_them() -> None:
    old, new = (
        forwarding_state([endpoint("10.5.2.0/24", "192.0.2.2", "02")], FAR),
        forwarding_state([endpoint("10.5.3.0/24", "192.0.2.3", "03")], FAR),
    )
    assert [rtnl_overlay.described(change) for change in difference(old, new, FAR)] == [
        "ip neighbour replace 10.5.3.0 lladdr 0a:00:00:00:00:03",
        "bridge fdb replace 0a:00:00:00:00:03 dst 192.0.2.3",
        "ip route replace 10.5.3.0/24 via 10.5.3.0",
        "ip route delete 10.5.2.0/24 via 10.5.2.0",
        "ip neighbour delete 10.5.2.0 lladdr 0a:00:00:00:00:02",
        "bridge fdb delete 0a:00:00:00:00:02 dst 192.0.2.2",
    ]


def test_a_route_is_deleted_whoever_made_it() -> None:
    """Routes of flannel on the tunnel's device are taken over."""
    old = forwarding_state([endpoint("10.5.2.0/24", "192.0.2.2", "02")], FAR)
    (deletion,) = [
        payload for kind, _, payload in difference(old, ForwardingState(), FAR) if kind == rtnl_overlay.RTM_DELROUTE
    ]
    assert rtnl_overlay.parse_kernel_route(deletion).protocol == 0


def any_actual(dice: random.Random, family: int) -> ForwardingState:
    """Returns a random state of the kernel, also such as nobody has configured on purpose."""
    state = ForwardingState()
    for _ in range(dice.randrange(12)):
        gw, index = any_ip(dice, family), dice.choice((DEVICE, WIRE, 99))
        state.routes[Net(any_ip(dice, family), dice.choice((24, 25)))] = NextHop(gw, index, dice.random() < 0.5)
        state.neighbours[any_ip(dice, family)] = any_mac(dice)
        state.fdb.add((bytes(6), any_ip(dice, family)))
    macs = {any_mac(dice) for _ in range(dice.randrange(8))}
    state.fdb |= {(mac, any_ip(dice, family)) for mac in macs}
    return state


def any_ip(dice: random.Random, family: int) -> IP:
    return IP(family, (10 << (24 if family == 4 else 120)) + (dice.randrange(8) << 8))


def any_mac(dice: random.Random) -> bytes:
    return bytes([2, 0, 0, 0, 0, dice.randrange(8)])


def any_wanted(dice: random.Random, family: int, links: NextHopLinks) -> ForwardingState:
    """Returns a random desired state, of peers that have nothing in common."""
    places = dice.sample(range(8), dice.randrange(8))
    macs, ips = dice.sample(range(8), len(places)), dice.sample(range(8), len(places))
    base = 10 << (24 if family == 4 else 120)
    return forwarding_state(
        [
            Endpoint(
                Net(IP(family, base + (place << 8)), 24), IP(family, base + (ip << 8)), bytes([2, 0, 0, 0, 0, mac])
            )
            for place, mac, ip in zip(places, macs, ips, strict=True)
        ],
        links,
    )


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("seed", seeds(50))
def test_whatever_is_there_the_changes_make_it_what_is_wanted(seed: int, family: int) -> None:
    dice = random.Random(seed)
    for _ in range(20):
        near = ((Net(IP(family, 10 << (24 if family == 4 else 120)), 22 if family == 4 else 118), WIRE),)
        links = NextHopLinks(DEVICE, near if dice.random() < 0.5 else ())
        actual, wanted = any_actual(dice, family), any_wanted(dice, family, links)
        kernel = Kernel(actual)
        for message in difference(actual, wanted, links):
            kernel.take(message)
            assert message[0] != rtnl.RTM_NEWROUTE or is_complete(kernel.state, message[2])
        assert same(kernel.state, wanted)
        assert difference(kernel.state, wanted, links) == []


def is_complete(state: ForwardingState, payload: bytes) -> bool:
    """A route into the tunnel leads to a neighbour whose place is known."""
    route = rtnl_overlay.parse_kernel_route(payload)
    assert route.gw is not None
    mac = state.neighbours.get(route.gw)
    return route.ifindex != DEVICE or any(entry_mac == mac for entry_mac, _ in state.fdb)


@pytest.mark.parametrize("seed", range(30))
def test_tables_that_follow_changes_are_those_of_all_peers(seed: int) -> None:
    dice = random.Random(seed)
    endpoints: dict[int, Endpoint] = {}
    state = ForwardingState()
    for _ in range(40):
        numbers = dice.sample(range(6), dice.randrange(1, 4))
        before = [endpoints.pop(number) for number in numbers if number in endpoints]
        for number in numbers:
            if dice.random() < 0.7:
                ip = f"{dice.choice(('192.0.2', '198.51.100'))}.{number + 1}"
                endpoints[number] = endpoint(f"10.5.{number}.0/24", ip, f"{dice.randrange(2)}{number}")
        after = [endpoints[number] for number in numbers if number in endpoints]
        state.replace(forwarding_state(before, MIXED), forwarding_state(after, MIXED))
        assert same(state, forwarding_state(endpoints.values(), MIXED))


def test_of_several_ways_out_the_longest_prefix_decides_who_is_near() -> None:
    """As it does for the kernel: a part of the wire's network may be behind a router."""
    links = NextHopLinks(DEVICE, ((parse_net("10.50.0.0/16"), 0), (parse_net("10.0.0.0/8"), WIRE)))
    assert links.direct_interface(parse_ip("10.49.0.1")) == WIRE
    assert not links.direct_interface(parse_ip("10.50.0.1"))
    assert not links.direct_interface(parse_ip("192.0.2.1"))


def test_states_are_the_same_by_their_entries_alone() -> None:
    near, far = endpoint("10.5.2.0/24", "192.0.2.2"), endpoint("10.5.2.0/24", "198.51.100.2")
    assert forwarding_state([near], MIXED).is_same(forwarding_state([near], MIXED))
    assert not forwarding_state([near], MIXED).is_same(forwarding_state([far], MIXED))


def test_a_route_is_an_agents_by_its_protocol_and_network() -> None:
    networks = [parse_net("10.5.0.0/16"), parse_net("fd00:5::/56")]
    assert is_ours(PROTOCOL, parse_net("10.5.2.0/24"), networks)
    assert not is_ours(PROTOCOL, parse_net("10.6.2.0/24"), networks)
    assert not is_ours(PROTOCOL, parse_net("fd00:6::/64"), networks)
    assert not is_ours(4, parse_net("10.5.2.0/24"), networks)
