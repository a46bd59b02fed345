"""rtnetlink messages of proxy neighbours: addresses for which the host answers neighbour solicitations (RFC 4861).

As in cni.kernel.rtnl, nothing here opens a socket.
"""

from __future__ import annotations

from cni.kernel.netlink import NLM_F_CREATE, address, attributes, u8, unpacked
from cni.kernel.rtnl_overlay import NDA_DST, NDMSG, RTM_DELNEIGH, RTM_GETNEIGH, RTM_NEWNEIGH
from cni.kernel.rtnl_parse import ip_of
from cni.protocol.address import address_family
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message
    from cni.protocol.address import IP

NTF_PROXY, NDA_PROTOCOL = 0x08, 12


class Proxy(Record):
    """A proxy neighbour on a link. `protocol`: who has made it, as of routes (rtnetlink(7)); 0: unknown."""

    ifindex: int
    ip: IP
    protocol: int


def add_proxy(proxy: Proxy) -> Message:
    """Adds a proxy neighbour; an existing one is kept."""
    return RTM_NEWNEIGH, NLM_F_CREATE, _proxy(proxy) + u8(NDA_PROTOCOL, proxy.protocol)


def delete_proxy(proxy: Proxy) -> Message:
    return RTM_DELNEIGH, 0, _proxy(proxy)


def _proxy(proxy: Proxy) -> bytes:
    family = address_family(proxy.ip.family)
    return NDMSG.pack(family, proxy.ifindex, 0, NTF_PROXY, 0) + address(NDA_DST, proxy.ip)


def all_proxies(family: int) -> tuple[int, bytes]:
    """Returns a dump of the proxy neighbours of a family on all links."""
    return RTM_GETNEIGH, NDMSG.pack(address_family(family), 0, 0, NTF_PROXY, 0)


def parse_proxy(data: bytes) -> Proxy:
    """Reads one answer of `all_proxies`. Raises Malformed."""
    _, ifindex, _, _, _ = unpacked(NDMSG, data)
    attrs = attributes(data, NDMSG.size)
    protocol = attrs.get(NDA_PROTOCOL, b"\0")[0]
    return Proxy(ifindex, ip_of(attrs.get(NDA_DST, b"")), protocol)
