"""The rtnetlink socket of one namespace: links by name, their addresses and routes.

An index is cached: within one call its links keep their names.
"""

from __future__ import annotations

from _struct import Struct
from errno import ENODEV, ENOENT

from cni.kernel import rtnl, rtnl_parse
from cni.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Netlink,
    NetlinkError,
    frame,
    refusal_of,
    unpacked,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from cni.kernel.rtnl import Message
    from cni.protocol.address import IP, Net

    T = TypeVar("T")

SOL_SOCKET, SO_NETNS_COOKIE = 1, 71  # include/uapi/asm-generic/socket.h, Linux 5.14
COOKIE = Struct("=Q")


class RtnlSocket(Netlink):
    """A socket whose methods raise NetlinkError if the kernel rejects a message, beyond what their own line says."""

    def __init__(self) -> None:
        super().__init__(rtnl.NETLINK_ROUTE)
        self._indexes: dict[str, int] = {}
        self._kept: dict[tuple[str, int, int], Any] | None = None

    def remember(self) -> None:
        """Caches further dumps: for a CHECK, which changes nothing and may need them thousands of times."""
        self._kept = {}

    def _once(self, key: tuple[str, int, int], listed: Callable[[], T]) -> T:
        if self._kept is None:
            return listed()
        if key not in self._kept:
            self._kept[key] = listed()
        value: T = self._kept[key]
        return value

    def namespace(self) -> str:
        """Returns the namespace's cookie, unique since the kernel started; empty before Linux 5.14."""
        try:
            return str(COOKIE.unpack(self._socket.getsockopt(SOL_SOCKET, SO_NETNS_COOKIE, COOKIE.size))[0])
        except OSError:
            return ""

    def find(self, name: str) -> rtnl_parse.Link | None:
        """Returns the link of that name; None if there is none."""
        try:
            return self.need(name)
        except NetlinkError as error:
            if error.errno == ENODEV:
                return None
            raise

    def find_at(self, index: int) -> rtnl_parse.Link | None:
        """Returns the link of that index; None if there is none."""
        try:
            return rtnl_parse.parse_link(self.ask(*rtnl.get_link_at(index))) if index > 0 else None
        except NetlinkError as error:
            if error.errno == ENODEV:
                return None
            raise

    def need(self, name: str) -> rtnl_parse.Link:
        """Returns the link as it is now. Raises NetlinkError (ENODEV) if there is none."""
        link = rtnl_parse.parse_link(self.ask(*rtnl.get_link(name)))
        self._indexes[name] = link.ifindex
        return link

    def ifindex(self, name: str) -> int:
        return self._indexes.get(name) or self.need(name).ifindex

    def delete(self, name: str, group: int = 0) -> None:
        """Deletes a link; with `group`, the link's own, all links of this group if podwire made it.

        A link that is gone already is success.
        """
        self._indexes.pop(name, None)
        self.tolerate(ENODEV, rtnl.delete_group(group) if group >= rtnl.GROUPS else rtnl.delete_link(name))

    def tolerate(self, errno: int, message: Message) -> None:
        """Sends a message, and ignores this one error."""
        try:
            self.request(*message)
        except NetlinkError as error:
            if error.errno != errno:
                raise

    def change_each(self, changes: Sequence[Message]) -> dict[int, NetlinkError]:
        """Sends changes in one datagram; returns the errors by position. The kernel answers those that it rejects, and
        the last, which asks for that: an answer to each would double the cost of many. Raises OSError.
        """
        before = self._sequence
        self._sequence += len(changes)
        frames = [
            frame(kind, flags | NLM_F_REQUEST, sequence, payload)
            for sequence, (kind, flags, payload) in enumerate(changes, before + 1)
        ]
        kind, flags, payload = changes[-1]
        frames[-1] = frame(kind, flags | NLM_F_REQUEST | NLM_F_ACK, self._sequence, payload)
        self._socket.send(b"".join(frames))
        errors: dict[int, NetlinkError] = {}
        for answer, answer_flags, sequence, content in self._messages():
            if answer != NLMSG_ERROR or sequence <= before:
                continue
            refusal = refusal_of(answer_flags, content)
            if refusal is not None:
                errors[sequence - before - 1] = refusal
            if sequence == self._sequence:
                return errors
        raise AssertionError("a socket's messages have no end")

    def get_route(self, ip: IP) -> rtnl_parse.RouteInfo | None:
        """Returns the route that the kernel selects for an address; None if there is none."""
        try:
            return rtnl_parse.parse_route(self.ask(*rtnl.route_get(ip)))
        except NetlinkError:
            return None

    def link_to(self, ip: IP) -> rtnl_parse.Link | None:
        """Returns the link of the route that the kernel selects for an address; None if there is no route."""
        route = self.get_route(ip)
        return next((link for link in self.links() if link.ifindex == route.ifindex), None) if route else None

    def defaults(self, family: int) -> list[rtnl_parse.RouteInfo]:
        """Returns the main table's default routes, the preferred one first; of several next hops the first."""
        try:
            answers = self.dump(*rtnl.main_routes(family))
        except NetlinkError as error:
            if error.errno == ENOENT:  # the table is made with its first route
                return []
            raise
        routes = [rtnl_parse.parse_next_hops(answer)[0] for answer in answers if not unpacked(rtnl.RTMSG, answer)[1]]
        # Where the kernel has no IPv6, it answers with IPv4.
        return sorted([route for route in routes if route.dst.family == family], key=lambda route: route.priority)

    def links(self) -> list[rtnl_parse.Link]:
        """Returns all links; the cost grows with their number."""
        return [rtnl_parse.parse_link(answer) for answer in self.dump(*rtnl.all_links())]

    def addresses(self, name: str) -> list[rtnl_parse.AddressInfo]:
        """Returns the addresses of one link; the kernel filters."""
        return [rtnl_parse.parse_address(answer) for answer in self.dump(*rtnl.addresses_of(self.ifindex(name)))]

    def all_addresses(self) -> list[rtnl_parse.AddressInfo]:
        """Returns the addresses of all links; the cost grows with their number."""
        return [rtnl_parse.parse_address(answer) for answer in self.dump(*rtnl.addresses_of(0))]

    def has_address(self, name: str, address: Net) -> bool:
        """Returns True if the link has the address; False also if there is no such link."""
        link = self.find(name)
        if link is None:
            return False
        return address in self._once(
            ("addresses", link.ifindex, 0), lambda: {info.address for info in self.addresses(name)}
        )

    def routes_of_link(self, ifindex: int, family: int) -> dict[Net, list[rtnl_parse.RouteInfo]]:
        """Returns the routes of one family by one link, by destination; the kernel filters, but further next hops."""

        def listed() -> dict[Net, list[rtnl_parse.RouteInfo]]:
            routes: dict[Net, list[rtnl_parse.RouteInfo]] = {}
            for answer in self.dump(*rtnl.routes_of(ifindex, family)):
                for route in rtnl_parse.parse_next_hops(answer):
                    if route.ifindex == ifindex:
                        routes.setdefault(route.dst, []).append(route)
            return routes

        return self._once(("routes", ifindex, family), listed)
