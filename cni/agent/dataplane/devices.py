"""The state of the links that the data plane needs: compared with what the kernel says, removed when they are stale."""

from __future__ import annotations

from errno import ENODEV
from typing import TYPE_CHECKING

from cni.kernel import rtnl, rtnl_overlay, rtnl_parse
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.kernel.rtnl_overlay import VxlanInfo
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import Net


class LinkState(Record):
    """A link as it has to be, or as a decision found it: a notification that says otherwise is news. What was read
    after the decision may have changed since. `tunnel` is None if it is not a VXLAN device.
    """

    name: str
    mac: bytes
    mtu: int
    up: bool
    master: int
    tunnel: VxlanInfo | None
    addresses: tuple[Net, ...]

    def matches(self, answer: bytes) -> bool:
        """Returns True if the kernel's message says the same of the link."""
        return parse_link_state(answer, self.addresses) == self


def parse_link_state(answer: bytes, addresses: tuple[Net, ...]) -> LinkState:
    """Returns the state of an RTM_NEWLINK message's link, which has these addresses."""
    link = rtnl_parse.parse_link(answer)
    return LinkState(link.name, link.mac, link.mtu, link.up, link.master, rtnl_overlay.parse_vxlan(answer), addresses)


def link_state(rtnl_socket: RtnlSocket, name: str) -> LinkState:
    """Returns the state that a link has now. Raises NetlinkError if there is none."""
    answer = rtnl_socket.ask(*rtnl.get_link(name))
    return parse_link_state(answer, tuple([info.address for info in rtnl_socket.addresses(name)]))


def remove_stale_devices(rtnl_socket: RtnlSocket, alias: str, keep: Collection[str]) -> list[str]:
    """Removes the agent's devices but these, with all that their tables hold; returns their names."""
    stale = [link.name for link in rtnl_socket.links() if link.alias == alias and link.name not in keep]
    for name in stale:
        rtnl_socket.tolerate(ENODEV, rtnl.delete_link(name))
    return stale
