"""The rtnetlink socket of one namespace: links by name, their addresses and routes.

An index is asked for once: within one call the links that it is about keep their names.
"""

from __future__ import annotations

from errno import ENODEV

from cni.kernel import rtinfo, rtnl
from cni.kernel.netlink import Netlink, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message


class Route(Netlink):
    """Every method raises Refused for what the kernel refuses, beyond what its own line says."""

    def __init__(self) -> None:
        super().__init__(rtnl.NETLINK_ROUTE)
        self._indexes: dict[str, int] = {}

    def find(self, name: str) -> rtinfo.Link | None:
        """None where there is no link of that name."""
        try:
            return self.need(name)
        except Refused as refused:
            if refused.errno == ENODEV:
                return None
            raise

    def need(self, name: str) -> rtinfo.Link:
        """The link as it is now. Refused (ENODEV) where there is none."""
        link = rtinfo.parse_link(self.ask(*rtnl.get_link(name)))
        self._indexes[name] = link.ifindex
        return link

    def ifindex(self, name: str) -> int:
        return self._indexes.get(name) or self.need(name).ifindex

    def delete(self, name: str) -> None:
        """A link that is gone already is success."""
        self._indexes.pop(name, None)
        self.tolerate(ENODEV, rtnl.delete_link(name))

    def tolerate(self, errno: int, message: Message) -> None:
        """Sends a message that may be refused with this one error."""
        try:
            self.request(*message)
        except Refused as refused:
            if refused.errno != errno:
                raise

    def links(self) -> list[rtinfo.Link]:
        """All links; the cost grows with their number."""
        return [rtinfo.parse_link(answer) for answer in self.dump(*rtnl.all_links())]

    def addresses(self, name: str) -> list[rtinfo.AddressInfo]:
        """The addresses of one link; the kernel filters."""
        return [rtinfo.parse_address(answer) for answer in self.dump(*rtnl.addresses_of(self.ifindex(name)))]
