"""rtnetlink messages as (type, flags, payload) (rtnetlink(7), kernel net/core/rtnetlink.c).

Nothing here opens a socket, so tests compare every message with pyroute2's.
"""

from __future__ import annotations

from _struct import Struct

from cni.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    address,
    attribute,
    nest,
    text,
    u8,
    u32,
)
from cni.protocol.address import address_family

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import IP, Net
    from cni.protocol.result import Route

    Message = tuple[int, int, bytes]

NETLINK_ROUTE = 0
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26

AF_UNSPEC, AF_INET, AF_BRIDGE, AF_INET6 = 0, 2, 7, 10
IFF_UP, IFF_PROMISC, IFF_ALLMULTI = 0x1, 0x100, 0x200

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_TXQLEN, IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS = 13, 16, 18, 20
IFLA_AF_SPEC, IFLA_GROUP, IFLA_NET_NS_FD = 26, 27, 28
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
IFA_F_TEMPORARY, IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_DEPRECATED = 0x01, 0x02, 0x08, 0x20
IFA_F_TENTATIVE, IFA_F_PERMANENT, IFA_F_NOPREFIXROUTE = 0x40, 0x80, 0x200

RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_METRICS, RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE = 8, 9, 12, 15
RTAX_MTU, RTAX_ADVMSS = 2, 8
RT_TABLE_COMPAT, RT_TABLE_MAIN = 252, 254
RTPROT_KERNEL, RTPROT_BOOT, RTPROT_RA, RTN_UNICAST = 2, 3, 9, 1
SCOPE_UNIVERSE, SCOPE_LINK = 0, 253

# Links of one group are deleted by one message, and the kernel waits for them once. A host interface's group is this
# plus its index, which no other link has as long as it exists.
GROUPS = 0x50570000

IFINFO = Struct("=BxHiII")  # family, type, index, flags, change
IFADDR = Struct("=BBBBI")  # family, prefix, flags, scope, index
RTMSG = Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
CACHE_INFO = Struct("=8xi")  # struct rta_cacheinfo: when the route expires
NEXTHOP = Struct("=H2xi")  # struct rtnexthop: length, flags and hops, index
VLAN_INFO = Struct("=HH")  # flags, vid

IPV4_BROADCAST_PREFIX = 31  # RFC 3021: none from here on


def _named(name: str, flags: int = 0, change: int = 0) -> bytes:
    """Returns the head of a message about a link by name: the kernel uses the name if the index is 0
    (net/core/rtnetlink.c).
    """
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
    """Adds both ends by (name, MAC address), down; the peer is created in the namespace of the descriptor, if given."""
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


def new_ifb(name: str, mac: bytes, mtu: int, group: int) -> Message:
    """Adds an ifb that is up and has no queue of its own."""
    payload = _named(name, IFF_UP, IFF_UP) + attribute(IFLA_ADDRESS, mac) + u32(IFLA_MTU, mtu) + u32(IFLA_TXQLEN, 0)
    payload += u32(IFLA_GROUP, group) if group else b""
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "ifb"))


def set_alias(name: str, alias: str) -> Message:
    """Sets the alias of an existing link; it cannot be set at creation (net/core/rtnetlink.c, rtnl_create_link)."""
    return RTM_SETLINK, 0, _named(name) + attribute(IFLA_IFALIAS, alias.encode())


def set_group(name: str, group: int) -> Message:
    return RTM_SETLINK, 0, _named(name) + u32(IFLA_GROUP, group)


def delete_group(group: int) -> Message:
    """Deletes all links of the group; the kernel waits for them together (net/core/rtnetlink.c, rtnl_group_dellink)."""
    return RTM_DELLINK, 0, _info() + u32(IFLA_GROUP, group)


def set_port(name: str, master: int, alias: str, ipv6: bool) -> Message:
    """Sets a link up, as a port of the master if there is one; it needs no address, so IPv6 adds none."""
    payload = _named(name, IFF_UP, IFF_UP) + (u32(IFLA_MASTER, master) if master else b"")
    if alias:
        payload += attribute(IFLA_IFALIAS, alias.encode())
    if ipv6:
        payload += nest(IFLA_AF_SPEC, nest(AF_INET6, u8(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_NONE)))
    return RTM_SETLINK, 0, payload


def set_flags(name: str, flags: int, change: int) -> Message:
    return RTM_SETLINK, 0, _named(name, flags, change)


def set_mac(name: str, mac: bytes) -> Message:
    return RTM_SETLINK, 0, _named(name) + attribute(IFLA_ADDRESS, mac)


def set_mtu(name: str, mtu: int) -> Message:
    return RTM_SETLINK, 0, _named(name) + u32(IFLA_MTU, mtu)


def set_txqlen(name: str, packets: int) -> Message:
    return RTM_SETLINK, 0, _named(name) + u32(IFLA_TXQLEN, packets)


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


def get_link_at(index: int) -> Message:
    return RTM_GETLINK, 0, _info(index) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def all_links() -> tuple[int, bytes]:
    return RTM_GETLINK, _info() + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)


def ports_of(master: int) -> tuple[int, bytes]:
    """Returns a dump of the links that have the master; the kernel filters."""
    return RTM_GETLINK, _info() + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS) + u32(IFLA_MASTER, master)


def all_port_vlans() -> tuple[int, bytes]:
    return RTM_GETLINK, _info(family=AF_BRIDGE) + u32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)


def new_address(index: int, net: Net, flags: int) -> Message:
    """Adds an address, with the same peer and in IPv4 the broadcast address, as `ip addr add`. Flags: IFA_F_*."""
    payload = _ifaddr(index, net) + address(IFA_LOCAL, net.ip) + address(IFA_ADDRESS, net.ip)
    if net.family == 4 and net.prefix < IPV4_BROADCAST_PREFIX:
        payload += address(IFA_BROADCAST, net.last)
    if flags:
        payload += u32(IFA_FLAGS, flags)
    return RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload


def delete_address(index: int, net: Net) -> Message:
    return RTM_DELADDR, 0, _ifaddr(index, net) + address(IFA_LOCAL, net.ip) + address(IFA_ADDRESS, net.ip)


def addresses_of(index: int) -> tuple[int, bytes]:
    """Returns a dump of one link's addresses, or with index 0 of all; strict checking makes the kernel filter."""
    return RTM_GETADDR, IFADDR.pack(AF_UNSPEC, 0, 0, 0, index)


def _ifaddr(index: int, net: Net) -> bytes:
    return IFADDR.pack(address_family(net.family), net.prefix, 0, SCOPE_UNIVERSE, index)


def new_route(index: int, route: Route, source: IP | None = None) -> Message:
    """Adds a route without EXCL, as the reference: several to one destination may differ in their next hop."""
    dst, table = route.dst, RT_TABLE_MAIN if route.table is None else route.table
    scope = (SCOPE_LINK if route.gw is None else SCOPE_UNIVERSE) if route.scope is None else route.scope
    short = table if table < RT_TABLE_COMPAT + 4 else RT_TABLE_COMPAT
    payload = RTMSG.pack(address_family(dst.family), dst.prefix, 0, 0, short, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    payload += u32(RTA_TABLE, table)
    if dst.prefix:
        payload += address(RTA_DST, dst.ip)
    if route.gw is not None:
        payload += address(RTA_GATEWAY, route.gw)
    payload += u32(RTA_OIF, index)
    if source is not None:
        payload += address(RTA_PREFSRC, source)
    if route.priority:
        payload += u32(RTA_PRIORITY, route.priority)
    metrics = [u32(kind, value) for kind, value in ((RTAX_MTU, route.mtu), (RTAX_ADVMSS, route.advmss)) if value]
    if metrics:
        payload += nest(RTA_METRICS, *metrics)
    return RTM_NEWROUTE, NLM_F_CREATE, payload


def route_get(ip: IP) -> Message:
    """Asks for the route that the kernel selects for an address, as `ip route get`."""
    head = RTMSG.pack(address_family(ip.family), ip.bits, 0, 0, 0, 0, 0, 0, 0)
    return RTM_GETROUTE, 0, head + address(RTA_DST, ip)


def routes_of(index: int, family: int) -> tuple[int, bytes]:
    """Returns a dump of the routes of one family (4 or 6) by one link, all tables; the kernel filters."""
    return RTM_GETROUTE, RTMSG.pack(address_family(family), 0, 0, 0, 0, 0, 0, 0, 0) + u32(RTA_OIF, index)


def main_routes(family: int) -> tuple[int, bytes]:
    """Returns a dump of one family's unicast routes in the main table; the kernel filters."""
    return RTM_GETROUTE, RTMSG.pack(address_family(family), 0, 0, 0, RT_TABLE_MAIN, 0, 0, RTN_UNICAST, 0)
