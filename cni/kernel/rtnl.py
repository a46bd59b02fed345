"""rtnetlink messages as (type, flags, payload), and its answers as records (rtnetlink(7), kernel net/core/rtnetlink.c).

Building and reading only: nothing here opens a socket, so every message can be held to pyroute2's.
"""

from __future__ import annotations

from _struct import Struct

from cni.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    U32,
    address,
    attribute,
    attributes,
    each_attribute,
    nest,
    text,
    u8,
    u32,
)
from cni.spec.address import IP, Net
from cni.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.spec.result import Route

    Message = tuple[int, int, bytes]

NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10
IFF_UP, IFF_PROMISC = 0x1, 0x100

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_PROTINFO = 1, 3, 4, 5, 10, 12
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD = 16, 18, 20, 26, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA = 1, 2, 4, 5
VETH_INFO_PEER = 1
IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE = 8, 1
IFLA_BR_VLAN_FILTERING = 7
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_BRIDGE_VLAN_INFO = 2
BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 0x2, 0x4
BRIDGE_VLAN_INFO_RANGE_BEGIN, BRIDGE_VLAN_INFO_RANGE_END = 0x8, 0x10
IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN, RTEXT_FILTER_SKIP_STATS = 29, 0x2, 0x8
OPERSTATE_UP = 6  # RFC 2863

IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_PERMANENT = 0x02, 0x08, 0x40, 0x80

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_METRICS, RTA_TABLE = 1, 4, 5, 6, 8, 15
RTAX_MTU, RTAX_ADVMSS = 2, 8
RT_TABLE_COMPAT, RT_TABLE_MAIN = 252, 254
RTPROT_BOOT, RTN_UNICAST = 3, 1
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253

IFINFO = Struct("=BxHiII")  # family, type, index, flags, change
IFADDR = Struct("=BBBBI")  # family, prefix, flags, scope, index
RTMSG = Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
VLAN_INFO = Struct("=HH")  # flags, vid

IPV4_BROADCAST_PREFIX = 31  # RFC 3021: none from here on


class Link(Record):
    """A link as the kernel tells it; `peer` is the other end's index, in whatever namespace that lives."""

    ifindex: int
    name: str
    kind: str
    mac: bytes
    mtu: int
    flags: int
    master: int
    peer: int
    operstate: int
    alias: str
    vlan_filtering: bool
    hairpin: bool
    isolated: bool

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)


class AddressInfo(Record):
    ifindex: int
    address: Net
    flags: int


class RouteInfo(Record):
    """A unicast route; `ifindex` 0 where it has several next hops."""

    dst: Net
    gw: IP | None
    ifindex: int
    priority: int
    table: int
    scope: int
    mtu: int
    advmss: int


def _named(name: str, flags: int = 0, change: int = 0) -> bytes:
    """The kernel finds a link by its name where the index is 0 (net/core/rtnetlink.c)."""
    return IFINFO.pack(AF_UNSPEC, 0, 0, flags, change) + text(IFLA_IFNAME, name)


def _info(index: int = 0, family: int = AF_UNSPEC) -> bytes:
    return IFINFO.pack(family, 0, index, 0, 0)


def new_bridge(name: str, mac: bytes, mtu: int, vlan_aware: bool) -> Message:
    kind = text(IFLA_INFO_KIND, "bridge")
    data = nest(IFLA_INFO_DATA, u8(IFLA_BR_VLAN_FILTERING, 1)) if vlan_aware else b""
    payload = _named(name) + attribute(IFLA_ADDRESS, mac)
    payload += u32(IFLA_MTU, mtu) if mtu else b""
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload + nest(IFLA_LINKINFO, kind, data)


def new_veth(end: tuple[str, bytes], peer: tuple[str, bytes], mtu: int, netns: int | None) -> Message:
    """Both ends by (name, MAC address), down; the peer is born in the namespace of the descriptor, if one is given."""
    mtu_attribute = u32(IFLA_MTU, mtu) if mtu else b""
    other = _named(peer[0]) + attribute(IFLA_ADDRESS, peer[1]) + mtu_attribute
    if netns is not None:
        other += u32(IFLA_NET_NS_FD, netns)
    info = nest(
        IFLA_LINKINFO,
        text(IFLA_INFO_KIND, "veth"),
        nest(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, other)),
    )
    payload = _named(end[0]) + attribute(IFLA_ADDRESS, end[1]) + mtu_attribute
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload + info


def set_port(name: str, master: int, alias: str, ipv6: bool) -> Message:
    """A link becomes a port of the master and comes up; it needs no address of its own, so IPv6 gives it none."""
    payload = _named(name, IFF_UP, IFF_UP) + u32(IFLA_MASTER, master)
    if alias:
        payload += attribute(IFLA_IFALIAS, alias.encode())
    if ipv6:
        payload += nest(IFLA_AF_SPEC, nest(AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE)))
    return RTM_SETLINK, 0, payload


def set_flags(name: str, flags: int, change: int) -> Message:
    return RTM_SETLINK, 0, _named(name, flags, change)


def set_mac(name: str, mac: bytes) -> Message:
    return RTM_SETLINK, 0, _named(name) + attribute(IFLA_ADDRESS, mac)


def set_vlan_filtering(name: str, enabled: bool) -> Message:
    data = nest(IFLA_INFO_DATA, u8(IFLA_BR_VLAN_FILTERING, enabled))
    return RTM_NEWLINK, 0, _named(name) + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), data)


def set_bridge_port(name: str, hairpin: bool, isolated: bool) -> Message:
    data = nest(IFLA_INFO_SLAVE_DATA, u8(IFLA_BRPORT_MODE, hairpin), u8(IFLA_BRPORT_ISOLATED, isolated))
    return RTM_NEWLINK, 0, _named(name) + nest(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), data)


def _vlan_spec(first: int, last: int, flags: int) -> bytes:
    if first == last:
        return attribute(IFLA_BRIDGE_VLAN_INFO, VLAN_INFO.pack(flags, first))
    begin = VLAN_INFO.pack(flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, first)
    end = VLAN_INFO.pack(flags | BRIDGE_VLAN_INFO_RANGE_END, last)
    return attribute(IFLA_BRIDGE_VLAN_INFO, begin) + attribute(IFLA_BRIDGE_VLAN_INFO, end)


def add_vlans(index: int, first: int, last: int, native: bool) -> Message:
    flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED if native else 0
    return RTM_SETLINK, 0, _info(index, family=AF_BRIDGE) + nest(IFLA_AF_SPEC, _vlan_spec(first, last, flags))


def delete_vlan(index: int, vid: int) -> Message:
    return RTM_DELLINK, 0, _info(index, family=AF_BRIDGE) + nest(IFLA_AF_SPEC, _vlan_spec(vid, vid, 0))


def delete_link(name: str) -> Message:
    return RTM_DELLINK, 0, _named(name)


def get_link(name: str) -> Message:
    return RTM_GETLINK, 0, _named(name) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def all_links() -> tuple[int, bytes]:
    return RTM_GETLINK, _info() + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def ports_of(master: int) -> tuple[int, bytes]:
    """A dump of the links that have the master; the kernel filters."""
    return RTM_GETLINK, _info() + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) + u32(IFLA_MASTER, master)


def all_port_vlans() -> tuple[int, bytes]:
    return RTM_GETLINK, _info(family=AF_BRIDGE) + u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)


def parse_link(data: bytes) -> Link:
    _, _, index, flags, _ = IFINFO.unpack_from(data)
    found = attributes(data, IFINFO.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    port = attributes(info.get(IFLA_INFO_SLAVE_DATA, b""))
    bridge = attributes(info.get(IFLA_INFO_DATA, b"")) if _string(info.get(IFLA_INFO_KIND)) == "bridge" else {}
    return Link(
        ifindex=index,
        name=_string(found.get(IFLA_IFNAME)),
        kind=_string(info.get(IFLA_INFO_KIND)),
        mac=found.get(IFLA_ADDRESS, b""),
        mtu=_u32(found.get(IFLA_MTU)),
        flags=flags,
        master=_u32(found.get(IFLA_MASTER)),
        peer=_u32(found.get(IFLA_LINK)),
        operstate=found.get(IFLA_OPERSTATE, b"\0")[0],
        alias=_string(found.get(IFLA_IFALIAS)),
        vlan_filtering=bridge.get(IFLA_BR_VLAN_FILTERING, b"\0") != b"\0",
        hairpin=port.get(IFLA_BRPORT_MODE, b"\0") != b"\0",
        isolated=port.get(IFLA_BRPORT_ISOLATED, b"\0") != b"\0",
    )


def parse_port_vlans(data: bytes) -> tuple[int, dict[int, int]]:
    """(link index, VLAN identifier -> BRIDGE_VLAN_INFO_* flags)."""
    _, _, index, _, _ = IFINFO.unpack_from(data)
    spec = attributes(data, IFINFO.size).get(IFLA_AF_SPEC, b"")
    vlans = [VLAN_INFO.unpack(info) for kind, info in each_attribute(spec) if kind == IFLA_BRIDGE_VLAN_INFO]
    return index, {vid: flags for flags, vid in vlans}


def new_address(index: int, net: Net, flags: int) -> Message:
    """Local and peer alike, and in IPv4 the broadcast address, as `ip addr add` does. Flags: IFA_F_*."""
    payload = _ifaddr(index, net) + address(IFA_LOCAL, net.ip) + address(IFA_ADDRESS, net.ip)
    if net.family == 4 and net.prefix < IPV4_BROADCAST_PREFIX:
        payload += address(IFA_BROADCAST, net.last)
    if flags:
        payload += u32(IFA_FLAGS, flags)
    return RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload


def delete_address(index: int, net: Net) -> Message:
    return RTM_DELADDR, 0, _ifaddr(index, net) + address(IFA_LOCAL, net.ip) + address(IFA_ADDRESS, net.ip)


def addresses_of(index: int) -> tuple[int, bytes]:
    """A dump of one link's addresses; strict checking makes the kernel filter."""
    return RTM_GETADDR, IFADDR.pack(AF_UNSPEC, 0, 0, 0, index)


def _ifaddr(index: int, net: Net) -> bytes:
    return IFADDR.pack(_family(net.family), net.prefix, 0, SCOPE_UNIVERSE, index)


def parse_address(data: bytes) -> AddressInfo:
    family, prefix, flags, _, index = IFADDR.unpack_from(data)
    found = attributes(data, IFADDR.size)
    ip = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    return AddressInfo(index, Net(_ip(family, ip), prefix), _u32(found.get(IFA_FLAGS)) or flags)


def new_route(index: int, route: Route) -> Message:
    """Without EXCL, as the reference: several routes to one destination may differ in their next hop."""
    dst, table = route.dst, RT_TABLE_MAIN if route.table is None else route.table
    scope = (SCOPE_LINK if route.gw is None else SCOPE_UNIVERSE) if route.scope is None else route.scope
    short = table if table < RT_TABLE_COMPAT + 4 else RT_TABLE_COMPAT
    payload = RTMSG.pack(_family(dst.family), dst.prefix, 0, 0, short, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    payload += u32(RTA_TABLE, table)
    if dst.prefix:
        payload += address(RTA_DST, dst.ip)
    if route.gw is not None:
        payload += address(RTA_GATEWAY, route.gw)
    payload += u32(RTA_OIF, index)
    if route.priority:
        payload += u32(RTA_PRIORITY, route.priority)
    metrics = [u32(kind, value) for kind, value in ((RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)) if value]
    if metrics:
        payload += nest(RTA_METRICS, *metrics)
    return RTM_NEWROUTE, NLM_F_CREATE, payload


def routes_of(index: int, family: int) -> tuple[int, bytes]:
    """A dump of the routes of one family (4 or 6) out of one link, all tables; the kernel filters."""
    return RTM_GETROUTE, RTMSG.pack(_family(family), 0, 0, 0, 0, 0, 0, 0, 0) + u32(RTA_OIF, index)


def parse_route(data: bytes) -> RouteInfo:
    family, prefix, _, _, table, _, scope, _, _ = RTMSG.unpack_from(data)
    found = attributes(data, RTMSG.size)
    metrics = attributes(found.get(RTA_METRICS, b""))
    gw = found.get(RTA_GATEWAY)
    empty = bytes(4 if family == AF_INET else 16)
    return RouteInfo(
        dst=Net(_ip(family, found.get(RTA_DST, empty)), prefix),
        gw=_ip(family, gw) if gw else None,
        ifindex=_u32(found.get(RTA_OIF)),
        priority=_u32(found.get(RTA_PRIORITY)),
        table=_u32(found.get(RTA_TABLE)) or table,
        scope=scope,
        mtu=_u32(metrics.get(RTAX_MTU)),
        advmss=_u32(metrics.get(RTAX_ADVMSS)),
    )


def _family(family: int) -> int:
    return AF_INET if family == 4 else AF_INET6


def _ip(family: int, packed: bytes) -> IP:
    return IP(4 if family == AF_INET else 6, int.from_bytes(packed, "big"))


def _string(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode("utf-8", "surrogateescape")


def _u32(data: bytes | None) -> int:
    return int(U32.unpack(data)[0]) if data else 0
