"""The data plane as values: what the kernel has to hold so that other nodes' pods are reached, and how it gets there.

For each subnet behind a tunnel there are the three entries that flannel makes: a route through the subnet's first
address, that address's neighbour entry, and where the tunnel's other end is. For one on the same wire: a route.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import rtnl_overlay
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cni.agent.model.lease import Endpoint
    from cni.kernel.rtnl import Message
    from cni.kernel.rtnl_overlay import KernelRoute
    from cni.protocol.address import IP, Net

PROTOCOL = 80  # rtnetlink(7): who made a route; from 17 on the numbers are free to use
PRIORITY = {4: 0, 6: 1024}  # of the agent's routes, the kernel's default of the family; a lower one wins


def is_ours(protocol: int, dst: Net, networks: Collection[Net]) -> bool:
    """Returns True if an agent of these networks made the route: another agent on the node has networks of its own."""
    return protocol == PROTOCOL and any(net.contains(dst.ip) for net in networks if net.family == dst.family)


class Links(Record):
    """Interface indexes: of the tunnel's device, 0 for none. `ways`: the networks that the host has routes to, the
    longest prefix first, each with the interface that it is on, 0 if it is behind a gateway.
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
    """One family's part: routes by destination; of the tunnel's device the neighbours by address, and the forwarding
    database, in which a MAC address may have more than one place. In the kernel there may be routes of others to the
    same destinations, and more of the agent's than it makes.
    """

    def __init__(self) -> None:
        self.routes: dict[Net, NextHop] = {}
        self.neighbours: dict[IP, bytes] = {}
        self.forwarding: set[tuple[bytes, IP]] = set()
        self.unreachable: list[Endpoint] = []  # without a tunnel they cannot be reached
        self.foreign: dict[Net, list[KernelRoute]] = {}
        self.surplus: list[KernelRoute] = []

    def add(self, endpoint: Endpoint, links: Links) -> None:
        if index := links.direct_interface(endpoint.public_ip):
            self.routes[endpoint.subnet] = NextHop(endpoint.public_ip, index, on_link=False)
        elif endpoint.vtep_mac is None or not links.device:
            self.unreachable.append(endpoint)
        else:
            self.routes[endpoint.subnet] = NextHop(endpoint.subnet.ip, links.device, on_link=True)
            self.neighbours[endpoint.subnet.ip] = endpoint.vtep_mac
            self.forwarding.add((endpoint.vtep_mac, endpoint.public_ip))

    def is_same(self, other: ForwardingState) -> bool:
        """The same entries are wanted."""
        mine, theirs = (
            (self.routes, self.neighbours, self.forwarding),
            (other.routes, other.neighbours, other.forwarding),
        )
        return mine == theirs

    def replace(self, old: ForwardingState, new: ForwardingState) -> None:
        for dst in old.routes:
            self.routes.pop(dst, None)
        for ip in old.neighbours:
            self.neighbours.pop(ip, None)
        self.routes |= new.routes
        self.neighbours |= new.neighbours
        self.forwarding -= old.forwarding
        self.forwarding |= new.forwarding


def forwarding_state(endpoints: Iterable[Endpoint], links: Links) -> ForwardingState:
    tables = ForwardingState()
    for endpoint in endpoints:
        tables.add(endpoint, links)
    return tables


def changes(actual: ForwardingState, wanted: ForwardingState, links: Links) -> list[Message]:
    """Returns the messages that turn the actual state into the wanted one: neighbours and FDB, routes, then removals.

    In this order no packet meets a route whose VTEP is unknown.
    """
    found = [
        rtnl_overlay.set_neighbour(links.device, ip, mac)
        for ip, mac in wanted.neighbours.items()
        if actual.neighbours.get(ip) != mac
    ]
    found += [rtnl_overlay.set_forwarding(links.device, ip, mac) for mac, ip in wanted.forwarding - actual.forwarding]
    found += [rtnl_overlay.delete_kernel_route(one) for one in actual.surplus if one.dst.family == 6]
    for dst, row in wanted.routes.items():
        there = actual.routes.get(dst)
        found += [rtnl_overlay.delete_kernel_route(one) for one in _in_the_way(actual, dst)]
        if there is not None and there.ifindex != row.ifindex and row.on_link and dst.family == 6:
            # A gateway on this link is refused while a route leads to it elsewhere (net/ipv6/route.c).
            found.append(rtnl_overlay.delete_route(dst, there.gw, there.ifindex, 0))
        if there != row:
            found.append(rtnl_overlay.set_route(dst, row.gw, row.ifindex, PROTOCOL, row.on_link))
    return found + _removals(actual, wanted, links)


def _in_the_way(actual: ForwardingState, dst: Net) -> list[KernelRoute]:
    """Routes of others that win, or share the traffic. Where the agent has none yet, one of IPv4 is replaced in place
    by its first; in IPv6 its gateway would be refused as long as another route leads there.
    """
    rivals = [one for one in actual.foreign.get(dst, ()) if one.priority <= PRIORITY[dst.family]]
    return rivals[1:] if dst.family == 4 and dst not in actual.routes else rivals


def _removals(actual: ForwardingState, wanted: ForwardingState, links: Links) -> list[Message]:
    found = [
        rtnl_overlay.delete_route(dst, row.gw, row.ifindex, 0)
        for dst, row in actual.routes.items()
        if dst not in wanted.routes
    ]
    found += [rtnl_overlay.delete_kernel_route(one) for one in actual.surplus if one.dst.family == 4]
    found += [
        rtnl_overlay.delete_neighbour(links.device, ip, mac)
        for ip, mac in actual.neighbours.items()
        if ip not in wanted.neighbours
    ]
    placed = {mac for mac, _ in wanted.forwarding - actual.forwarding}  # which takes the place of any other
    found += [
        rtnl_overlay.delete_forwarding(links.device, ip, mac)
        for mac, ip in actual.forwarding - wanted.forwarding
        if mac not in placed
    ]
    return found
