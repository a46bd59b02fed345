"""Reads the kernel's routes, neighbours and FDB entries that lead to other nodes, and changes them.

Each call is about one family. Many messages share a datagram, since there may be thousands of nodes.
"""

from __future__ import annotations

from errno import EEXIST, ENODEV, ENOENT, ESRCH
from os import strerror
from typing import TYPE_CHECKING

from cni.agent.dataplane.state import PRIORITY, PROTOCOL, ForwardingState, NextHop, is_ours
from cni.kernel import rtnl, rtnl_overlay
from cni.kernel.netlink import NLM_F_ACK, NetlinkError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cni.kernel.rtnl import Message
    from cni.kernel.rtnl_overlay import KernelRoute
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import Net

BATCH = 128  # messages in one datagram: their acknowledgements have to fit the socket's buffer
GONE = (ENOENT, ESRCH, ENODEV)  # errors of a deletion whose object does not exist
RTPROT_KERNEL, RTPROT_BOOT = 2, 3  # the latter is that of flannel's routes


def _routes(route: RtnlSocket, question: tuple[int, bytes], family: int) -> list[KernelRoute]:
    """Returns the main table's routes of a family, by a dump request. Raises NetlinkError, Interrupted."""
    try:
        answers = route.dump(*question)
    except NetlinkError as refused:
        if refused.errno == ENOENT:  # the table is created with its first route
            return []
        raise
    found = [rtnl_overlay.parse_kernel_route(answer) for answer in answers]
    return [one for one in found if one.main and one.dst.family == family]  # without IPv6 the kernel answers with IPv4


def host_routes(route: RtnlSocket, wire: int, device: int, family: int) -> tuple[tuple[Net, int], ...]:
    """Returns the networks that the host's own routes lead to, the longest prefix first, with their interface indexes.

    The index is 0 behind a gateway. Of several interfaces in one network it is `underlay`, if that is one of them, else
    that of the route that takes precedence.
    """
    found: dict[Net, int] = {}
    for one in sorted(_routes(route, rtnl.main_routes(family), family), key=lambda one: one.priority):
        if not one.dst.prefix or _is_ours(one, device):
            continue
        index = one.ifindex if one.gw is None else 0
        if one.dst not in found or index == wire:
            found[one.dst] = index
    return tuple(sorted(found.items(), key=lambda endpoint: -endpoint[0].prefix))


def connected_networks(route: RtnlSocket, family: int) -> tuple[tuple[Net, int], ...]:
    """Returns the networks that this node is connected to, by the kernel's routes of its addresses, each with its
    interface index.
    """
    found = _routes(route, rtnl_overlay.routes_by(RTPROT_KERNEL, family), family)
    shared = {(one.dst, one.ifindex) for one in found if 0 < one.dst.prefix < one.dst.ip.bits}
    return tuple(sorted(one for one in shared if not one[0].ip.is_ipv6_link_local))


def read_forwarding_state(route: RtnlSocket, family: int, device: int, networks: Collection[Net]) -> ForwardingState:
    """Returns the state in the kernel: the device's entries, and podwired's routes for these networks on other links.

    Raises NetlinkError, Interrupted.
    """
    found = ForwardingState()
    if device:
        for answer in route.dump(*rtnl_overlay.neighbours_of(device, family)):
            neighbour = rtnl_overlay.parse_neighbour(answer)
            if neighbour is not None and neighbour.permanent:
                found.neighbours[neighbour.ip] = neighbour.mac
        for answer in route.dump(*rtnl_overlay.forwarding_of(device)):
            entry = rtnl_overlay.parse_neighbour(answer)
            if entry is not None and entry.permanent and entry.is_plain:
                found.forwarding.add((entry.mac, entry.ip))
    for one in _routes(route, rtnl_overlay.routes_by(0, family), family):
        _note_route(found, one, device, networks)
    return found


def _note_route(found: ForwardingState, one: KernelRoute, device: int, networks: Collection[Net]) -> None:
    """Notes a route; of several of the agent's to one destination, only the one with the usual metric counts."""
    if one.protocol == RTPROT_KERNEL or (one.is_blackhole and one.protocol == PROTOCOL):
        return
    if one.protocol == PROTOCOL and one.ifindex != device and not is_ours(one.protocol, one.dst, networks):
        return  # another agent's
    if not _is_ours(one, device) or one.gw is None:
        found.foreign.setdefault(one.dst, []).append(one)
    elif one.priority == PRIORITY[one.dst.family] and one.dst not in found.routes:
        found.routes[one.dst] = NextHop(one.gw, one.ifindex, one.on_link, one.is_plain)
    else:
        found.surplus.append(one)


def _is_ours(one: KernelRoute, device: int) -> bool:
    return one.protocol == PROTOCOL or (one.ifindex == device and one.protocol == RTPROT_BOOT)


def apply(route: RtnlSocket, messages: Sequence[Message]) -> list[str]:
    """Sends all messages, and returns the kernel's errors as texts."""
    failed = []
    waiting = [(kind, flags | NLM_F_ACK, payload) for kind, flags, payload in messages]
    for start in range(0, len(waiting), BATCH):
        part = waiting[start : start + BATCH]
        for message, answer in zip(part, route.ask_each(part), strict=True):
            if isinstance(answer, NetlinkError) and not _is_gone(message, answer):
                failed.append(f"{rtnl_overlay.described(message)}: {answer.words or strerror(answer.errno)}")
    return failed


def _is_gone(message: Message, refused: NetlinkError) -> bool:
    return message[0] in (rtnl_overlay.RTM_DELROUTE, rtnl_overlay.RTM_DELNEIGH) and refused.errno in GONE


def ensure_blackhole_routes(route: RtnlSocket, family: int, wanted: tuple[Net, ...], networks: Collection[Net]) -> None:
    """Adds blackhole routes for the wanted subnets, with the last metric, and deletes all others of these networks.

    Raises NetlinkError.
    """
    found = _routes(route, rtnl_overlay.routes_by(PROTOCOL, family), family)
    present = {one.dst for one in found if one.is_blackhole and is_ours(one.protocol, one.dst, networks)}
    for dst in present.difference(wanted):
        route.tolerate(ESRCH, rtnl_overlay.delete_blackhole(dst, PROTOCOL))
    for dst in set(wanted) - present:
        route.tolerate(EEXIST, rtnl_overlay.new_blackhole(dst, PROTOCOL))


def clear(route: RtnlSocket, family: int, networks: Collection[Net]) -> list[str]:
    """Deletes podwired's routes for these networks, and returns the kernel's errors; none if it lacks the family."""
    try:
        ensure_blackhole_routes(route, family, (), networks)
        found = read_forwarding_state(route, family, 0, networks)
    except NetlinkError:
        return []
    ours = [rtnl_overlay.delete_route(dst, row.gw, row.ifindex, PROTOCOL) for dst, row in found.routes.items()]
    return apply(route, ours + [rtnl_overlay.delete_kernel_route(one) for one in found.surplus])
