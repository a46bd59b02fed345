"""Questions for the kernel: the route of a packet, neighbours, the FDB, the ports of a bridge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel import rtnl, rtnl_overlay
from cni.kernel.netlink import NetlinkError, address, attributes, u32, unpacked
from cni.kernel.rtnl_parse import ip_of, parse_route
from cni.protocol.address import address_family
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import IP

RTA_SRC, RTA_IIF = 2, 3  # include/uapi/linux/rtnetlink.h
LOCAL = 2  # RTN_LOCAL
KIND_OFFSET = 7  # of rtm_type in struct rtmsg
STATES = {  # include/uapi/linux/neighbour.h
    0x01: "INCOMPLETE",
    0x02: "REACHABLE",
    0x04: "STALE",
    0x08: "DELAY",
    0x10: "PROBE",
    0x20: "FAILED",
    0x40: "NOARP",
    0x80: "PERMANENT",
}
FAILED, INCOMPLETE, PERMANENT = "FAILED", "INCOMPLETE", "PERMANENT"


class NextHop(Record):
    """The answer of `ip route get`. `is_local`: the address is this host's; `source` is the address that it would
    send from.
    """

    ifindex: int
    gw: IP | None
    source: IP | None
    is_local: bool


class Neighbour(Record):
    """An entry of the neighbour table; `mac` is empty if it is not resolved, `state` one of STATES."""

    ip: IP
    mac: bytes
    state: str


def next_hop(socket: RtnlSocket, ip: IP, source: IP | None = None, iif: int = 0) -> NextHop | NetlinkError:
    """Returns the route of a packet, with `source` and `iif` one that the host receives there, or the kernel's error:
    EHOSTUNREACH if it is not forwarded, EXDEV or EINVAL if rp_filter drops it (net/ipv4/route.c). Raises OSError.
    """
    head = rtnl.RTMSG.pack(address_family(ip.family), ip.bits, ip.bits if source else 0, 0, 0, 0, 0, 0, 0)
    payload = head + address(rtnl.RTA_DST, ip)
    payload += address(RTA_SRC, source) if source is not None else b""
    payload += u32(RTA_IIF, iif) if iif else b""
    try:
        answer = socket.ask(rtnl.RTM_GETROUTE, 0, payload)
    except NetlinkError as error:
        return error
    route = parse_route(answer)
    return NextHop(route.ifindex, route.gw, route.source, unpacked(rtnl.RTMSG, answer)[KIND_OFFSET] == LOCAL)


def neighbour(socket: RtnlSocket, ifindex: int, ip: IP) -> Neighbour | None:
    """Returns the entry of an address on a link; None if there is none. Raises NetlinkError, OSError."""
    for answer in socket.dump(*rtnl_overlay.neighbours_of(ifindex, ip.family)):
        attrs = attributes(answer, rtnl_overlay.NDMSG.size)
        packed = attrs.get(rtnl_overlay.NDA_DST)
        if packed is not None and ip_of(packed) == ip:
            state = unpacked(rtnl_overlay.NDMSG, answer)[2]
            return Neighbour(ip, attrs.get(rtnl_overlay.NDA_LLADDR, b""), STATES.get(state, hex(state)))
    return None


def vteps(socket: RtnlSocket, ifindex: int, mac: bytes) -> list[IP]:
    """Returns the remote VTEPs to which a VXLAN device sends frames for a MAC address. Raises NetlinkError, OSError."""
    entries = [rtnl_overlay.parse_neighbour(answer) for answer in socket.dump(*rtnl_overlay.fdb_of(ifindex))]
    return [entry.ip for entry in entries if entry is not None and entry.mac == mac]
