"""The data plane as values: the kernel's entries that lead to other nodes' pods, and the messages that create them.

A subnet behind a tunnel has the three entries that flannel creates: a route by the subnet's first address, a neighbour
entry of that address, and an FDB entry with the peer's VTEP. A directly connected peer has a route alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import rtnl, rtnl_overlay
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cni.agent.model.lease import Endpoint
    from cni.kernel.rtnl import Message
    from cni.kernel.rtnl_overlay import KernelRoute
    from cni.protocol.address import IP, Net

    Entry = Net | IP | tuple[bytes, IP]  # a route's destination, a neighbour's address, or a VTEP of the FDB

PROTOCOL = 80  # of the agent's routes (rtnetlink(7), rtm_protocol); numbers from 17 on are free to use
PRIORITY = {4: 0, 6: 1024}  # of the agent's routes, the kernel's default of the family; a lower one wins


def is_ours(protocol: int, dst: Net, networks: Collection[Net]) -> bool:
    """Returns True if an agent of these networks made the route: another agent on the node has networks of its own."""
    return protocol == PROTOCOL and any(net.contains(dst.ip) for net in networks if net.family == dst.family)


class NextHopLinks(Record):
    """The links by which peers are reached. `device`: the tunnel's interface index, 0 if there is none.

    `host_routes`: networks that the host has routes to, the longest prefix first, each with its interface index, 0 if
    it is behind a gateway.
    """

    device: int
    host_routes: tuple[tuple[Net, int], ...]

    def direct_interface(self, ip: IP) -> int:
        """Returns the interface by which a node needs neither tunnel nor gateway; 0 if there is none."""
        return next((index for network, index in self.host_routes if network.contains(ip)), 0)


class NextHop(Record):
    gw: IP
    ifindex: int
    on_link: bool
    is_plain: bool = True


class ForwardingState:
    """One family's state: routes by destination, and of the tunnel's device the neighbours by address, and the FDB as
    pairs of MAC address and VTEP.

    `unreachable`: endpoints that have neither a direct route nor a tunnel. State that was read from the kernel also has
    `foreign` routes of other programs, by destination, and `surplus` routes of the agent, which are not wanted.
    """

    def __init__(self) -> None:
        self.routes: dict[Net, NextHop] = {}
        self.neighbours: dict[IP, bytes] = {}
        self.fdb: set[tuple[bytes, IP]] = set()
        self.unreachable: list[Endpoint] = []
        self.foreign: dict[Net, list[KernelRoute]] = {}
        self.surplus: list[KernelRoute] = []

    def add(self, endpoint: Endpoint, links: NextHopLinks) -> None:
        if index := links.direct_interface(endpoint.public_ip):
            self.routes[endpoint.subnet] = NextHop(endpoint.public_ip, index, on_link=False)
        elif endpoint.vtep_mac is None or not links.device:
            self.unreachable.append(endpoint)
        else:
            self.routes[endpoint.subnet] = NextHop(endpoint.subnet.ip, links.device, on_link=True)
            self.neighbours[endpoint.subnet.ip] = endpoint.vtep_mac
            self.fdb.add((endpoint.vtep_mac, endpoint.public_ip))

    def is_same(self, other: ForwardingState) -> bool:
        """Returns True if both have the same routes, neighbours and FDB entries."""
        mine, theirs = (
            (self.routes, self.neighbours, self.fdb),
            (other.routes, other.neighbours, other.fdb),
        )
        return mine == theirs

    def replace(self, old: ForwardingState, new: ForwardingState) -> None:
        for dst in old.routes:
            self.routes.pop(dst, None)
        for ip in old.neighbours:
            self.neighbours.pop(ip, None)
        self.routes |= new.routes
        self.neighbours |= new.neighbours
        self.fdb -= old.fdb
        self.fdb |= new.fdb


def forwarding_state(endpoints: Iterable[Endpoint], links: NextHopLinks) -> ForwardingState:
    state = ForwardingState()
    for endpoint in endpoints:
        state.add(endpoint, links)
    return state


def difference(actual: ForwardingState, wanted: ForwardingState, links: NextHopLinks) -> list[Message]:
    """Returns the messages that turn the actual state into the wanted one: neighbours and FDB, routes, then removals.

    In this order no packet meets a route whose VTEP is unknown.
    """
    messages = [
        rtnl_overlay.set_neighbour(links.device, ip, mac)
        for ip, mac in wanted.neighbours.items()
        if actual.neighbours.get(ip) != mac
    ]
    messages += [rtnl_overlay.set_fdb_entry(links.device, ip, mac) for mac, ip in wanted.fdb - actual.fdb]
    messages += [rtnl_overlay.delete_kernel_route(route) for route in actual.surplus if route.dst.family == 6]
    for dst, next_hop in wanted.routes.items():
        current = actual.routes.get(dst)
        messages += [rtnl_overlay.delete_kernel_route(route) for route in _in_the_way(actual, dst)]
        if current is not None and current.ifindex != next_hop.ifindex and next_hop.on_link and dst.family == 6:
            # A gateway on this link is refused while a route leads to it elsewhere (net/ipv6/route.c).
            messages.append(rtnl_overlay.delete_route(dst, current.gw, current.ifindex, 0))
        if current != next_hop:
            messages.append(rtnl_overlay.set_route(dst, next_hop.gw, next_hop.ifindex, PROTOCOL, next_hop.on_link))
    return messages + _removals(actual, wanted, links)


def _in_the_way(actual: ForwardingState, dst: Net) -> list[KernelRoute]:
    """Returns other programs' routes that take precedence or share the traffic, as far as they have to be deleted.

    The agent's first IPv4 route replaces one of them in place. In IPv6 its gateway would be rejected as long as another
    route leads there.
    """
    rivals = [route for route in actual.foreign.get(dst, ()) if route.priority <= PRIORITY[dst.family]]
    return rivals[1:] if dst.family == 4 and dst not in actual.routes else rivals


def _removals(actual: ForwardingState, wanted: ForwardingState, links: NextHopLinks) -> list[Message]:
    messages = [
        rtnl_overlay.delete_route(dst, next_hop.gw, next_hop.ifindex, 0)
        for dst, next_hop in actual.routes.items()
        if dst not in wanted.routes
    ]
    messages += [rtnl_overlay.delete_kernel_route(route) for route in actual.surplus if route.dst.family == 4]
    messages += [
        rtnl_overlay.delete_neighbour(links.device, ip, mac)
        for ip, mac in actual.neighbours.items()
        if ip not in wanted.neighbours
    ]
    moved = {mac for mac, _ in wanted.fdb - actual.fdb}  # which takes the place of any other
    messages += [
        rtnl_overlay.delete_fdb_entry(links.device, ip, mac) for mac, ip in actual.fdb - wanted.fdb if mac not in moved
    ]
    return messages


def entry_of(message: Message) -> Entry | None:
    """Returns the entry that a message sets; None for a removal."""
    kind, _, payload = message
    if kind == rtnl.RTM_NEWROUTE:
        return rtnl_overlay.parse_kernel_route(payload).dst
    entry = rtnl_overlay.parse_neighbour(payload) if kind == rtnl_overlay.RTM_NEWNEIGH else None
    if entry is None:
        return None
    return (entry.mac, entry.ip) if payload[0] == rtnl.AF_BRIDGE else entry.ip
