"""Reads the kernel's routes, neighbours and FDB entries that lead to other nodes, and changes them.

Each call is about one family. Many messages share a datagram, since there may be thousands of nodes.
"""

from __future__ import annotations

from errno import EEXIST, ENODEV, ENOENT, ESRCH
from os import strerror
from typing import TYPE_CHECKING

from cni.agent.dataplane.state import PRIORITY, PROTOCOL, ForwardingState, NextHop, is_ours
from cni.kernel import rtnl, rtnl_overlay
from cni.kernel.netlink import NetlinkError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cni.kernel.rtnl import Message
    from cni.kernel.rtnl_overlay import KernelRoute
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import Net

BATCH = 128  # messages in one datagram: if all are refused, the answers have to fit the socket's buffer
GONE = (ENOENT, ESRCH, ENODEV)  # errors of a deletion whose object does not exist
RTPROT_KERNEL, RTPROT_BOOT = 2, 3  # the latter is that of flannel's routes


class Refusal(Record):
    """A message that the kernel refused, and its error as a text."""

    message: Message
    text: str


def _routes(rtnl_socket: RtnlSocket, request: tuple[int, bytes], family: int) -> list[KernelRoute]:
    """Returns the main table's routes of a family, by a dump request. Raises NetlinkError, Interrupted."""
    try:
        answers = rtnl_socket.dump(*request)
    except NetlinkError as error:
        if error.errno == ENOENT:  # the table is created with its first route
            return []
        raise
    routes = [rtnl_overlay.parse_kernel_route(answer) for answer in answers]
    return [
        route for route in routes if route.main and route.dst.family == family
    ]  # without IPv6 the kernel answers with IPv4


def host_routes(rtnl_socket: RtnlSocket, underlay: int, device: int, family: int) -> tuple[tuple[Net, int], ...]:
    """Returns the networks that the host's own routes lead to, the longest prefix first, with their interface indexes.

    The index is 0 behind a gateway. Of several interfaces in one network it is `underlay`, if that is one of them, else
    that of the route that takes precedence.
    """
    indexes: dict[Net, int] = {}
    for route in sorted(_routes(rtnl_socket, rtnl.main_routes(family), family), key=lambda route: route.priority):
        if not route.dst.prefix or _is_ours(route, device):
            continue
        index = route.ifindex if route.gw is None else 0
        if route.dst not in indexes or index == underlay:
            indexes[route.dst] = index
    return tuple(sorted(indexes.items(), key=lambda item: -item[0].prefix))


def connected_networks(rtnl_socket: RtnlSocket, family: int) -> tuple[tuple[Net, int], ...]:
    """Returns the networks that this node is connected to, by the kernel's routes of its addresses, each with its
    interface index.
    """
    routes = _routes(rtnl_socket, rtnl_overlay.routes_by(RTPROT_KERNEL, family), family)
    networks = {(route.dst, route.ifindex) for route in routes if 0 < route.dst.prefix < route.dst.ip.bits}
    return tuple(sorted((net, ifindex) for net, ifindex in networks if not net.ip.is_ipv6_link_local))


def read_forwarding_state(
    rtnl_socket: RtnlSocket, family: int, device: int, networks: Collection[Net]
) -> ForwardingState:
    """Returns the state in the kernel: the device's entries, and podwired's routes for these networks on other links.

    Raises NetlinkError, Interrupted.
    """
    state = ForwardingState()
    if device:
        for answer in rtnl_socket.dump(*rtnl_overlay.neighbours_of(device, family)):
            neighbour = rtnl_overlay.parse_neighbour(answer)
            if neighbour is not None and neighbour.permanent:
                state.neighbours[neighbour.ip] = neighbour.mac
        for answer in rtnl_socket.dump(*rtnl_overlay.fdb_of(device)):
            entry = rtnl_overlay.parse_neighbour(answer)
            if entry is not None and entry.permanent and entry.is_plain:
                state.fdb.add((entry.mac, entry.ip))
    for route in _routes(rtnl_socket, rtnl_overlay.routes_by(0, family), family):
        _note_route(state, route, device, networks)
    return state


def _note_route(state: ForwardingState, route: KernelRoute, device: int, networks: Collection[Net]) -> None:
    """Notes a route; of several of the agent's to one destination, only the one with the usual metric counts."""
    if route.protocol == RTPROT_KERNEL or (route.is_blackhole and route.protocol == PROTOCOL):
        return
    if route.protocol == PROTOCOL and route.ifindex != device and not is_ours(route.protocol, route.dst, networks):
        return  # another agent's
    if not _is_ours(route, device) or route.gw is None:
        state.foreign.setdefault(route.dst, []).append(route)
    elif route.priority == PRIORITY[route.dst.family] and route.dst not in state.routes:
        state.routes[route.dst] = NextHop(route.gw, route.ifindex, route.on_link, route.is_plain)
    else:
        state.surplus.append(route)


def _is_ours(route: KernelRoute, device: int) -> bool:
    return route.protocol == PROTOCOL or (route.ifindex == device and route.protocol == RTPROT_BOOT)


def apply(rtnl_socket: RtnlSocket, messages: Sequence[Message]) -> list[Refusal]:
    """Sends all messages, and returns those that the kernel refused."""
    refusals = []
    for start in range(0, len(messages), BATCH):
        batch = messages[start : start + BATCH]
        for position, error in rtnl_socket.change_each(batch).items():
            message = batch[position]
            if not _is_gone(message, error):
                text = f"{rtnl_overlay.described(message)}: {error.text or strerror(error.errno)}"
                refusals.append(Refusal(message, text))
    return refusals


def _is_gone(message: Message, error: NetlinkError) -> bool:
    return message[0] in (rtnl_overlay.RTM_DELROUTE, rtnl_overlay.RTM_DELNEIGH) and error.errno in GONE


def ensure_blackhole_routes(
    rtnl_socket: RtnlSocket, family: int, wanted: tuple[Net, ...], networks: Collection[Net]
) -> None:
    """Adds blackhole routes for the wanted subnets, with the last metric, and deletes all others of these networks.

    Raises NetlinkError.
    """
    routes = _routes(rtnl_socket, rtnl_overlay.routes_by(PROTOCOL, family), family)
    present = {route.dst for route in routes if route.is_blackhole and is_ours(route.protocol, route.dst, networks)}
    for dst in present.difference(wanted):
        rtnl_socket.tolerate(ESRCH, rtnl_overlay.delete_blackhole(dst, PROTOCOL))
    for dst in set(wanted) - present:
        rtnl_socket.tolerate(EEXIST, rtnl_overlay.new_blackhole(dst, PROTOCOL))


def clear(rtnl_socket: RtnlSocket, family: int, networks: Collection[Net]) -> list[str]:
    """Deletes podwired's routes for these networks, and returns the kernel's errors; none if it lacks the family."""
    try:
        ensure_blackhole_routes(rtnl_socket, family, (), networks)
        state = read_forwarding_state(rtnl_socket, family, 0, networks)
    except NetlinkError:
        return []
    ours = [
        rtnl_overlay.delete_route(dst, next_hop.gw, next_hop.ifindex, PROTOCOL)
        for dst, next_hop in state.routes.items()
    ]
    messages = ours + [rtnl_overlay.delete_kernel_route(route) for route in state.surplus]
    return [refusal.text for refusal in apply(rtnl_socket, messages)]
