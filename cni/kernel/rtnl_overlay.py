"""rtnetlink messages of overlays: VXLAN devices, neighbours, FDB entries, and the routes to other nodes.

As in cni.kernel.rtnl, nothing here opens a socket (kernel include/uapi/linux/if_link.h, neighbour.h, rtnetlink.h).
"""

from __future__ import annotations

from _struct import Struct
from sys import byteorder

from cni.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    address,
    attribute,
    attributes,
    nest,
    text,
    u8,
    u32,
    unpacked,
)
from cni.kernel.rtnl import (
    AF_BRIDGE,
    AF_UNSPEC,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTM_GETROUTE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_SETLINK,
    RTMSG,
    RTN_UNICAST,
    SCOPE_UNIVERSE,
)
from cni.kernel.rtnl_parse import ip_of, net_of, unspecified
from cni.protocol.address import address_family, mac_text
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message
    from cni.protocol.address import IP, Net

RTM_DELROUTE = 25
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NDA_DST, NDA_LLADDR, NDA_PORT, NDA_VNI, NDA_IFINDEX = 1, 2, 6, 7, 8
NUD_PERMANENT, NTF_SELF = 0x80, 0x02
RTNH_F_ONLINK, RTN_BLACKHOLE = 4, 6
RTA_VIA, VIA_FAMILY_BYTES = 18, 2  # a gateway of the other family
RTA_NH_ID, SCOPE_NOWHERE = 30, 255
INTERIOR_SCOPES = 199  # between those of the universe, 0, and of a site, 200
LAST_METRIC = 0xFFFFFFFE  # behind every other route to the same destination
IFLA_VXLAN_ID, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 3, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6, IFLA_VXLAN_GBP = 15, 17, 23

NDMSG = Struct("=BxxxiHBB")  # family, index, state, flags, type
PORT = Struct(">H")


class VxlanInfo(Record):
    """The settings of a VXLAN device. `link`: the index of the underlay interface; `port` in host order."""

    vni: int
    link: int
    local: IP
    port: int
    learning: bool
    gbp: bool


class Neighbour(Record):
    """An entry of the neighbour table, or of the FDB, where `ip` is the remote VTEP's. `is_plain`: with the port, the
    VNI and the link of the device.
    """

    ifindex: int
    ip: IP
    mac: bytes
    permanent: bool
    is_plain: bool = True


class KernelRoute(Record):
    """A route with its protocol; `main`: in the main table, for packets of every source and TOS. Index 0: it has
    several next hops, none, or a nexthop object. `is_plain`: without a preferred source and own metrics. `priority`:
    the metric of ip(8).
    """

    dst: Net
    gw: IP | None
    ifindex: int
    main: bool
    protocol: int
    on_link: bool
    is_plain: bool = True
    priority: int = 0
    kind: int = RTN_UNICAST

    @property
    def is_blackhole(self) -> bool:
        return self.kind == RTN_BLACKHOLE


def new_vxlan(name: str, mac: bytes, mtu: int, info: VxlanInfo) -> Message:
    """Adds a device that is down. Port 0: the kernel's default. The kernel rejects an MTU above the underlay's."""
    payload = IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + attribute(IFLA_ADDRESS, mac)
    payload += u32(IFLA_MTU, mtu) + nest(
        IFLA_LINKINFO, text(IFLA_INFO_KIND, "vxlan"), attribute(IFLA_INFO_DATA, _changeable(info) + _fixed(info))
    )
    return RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload


def set_vxlan(name: str, info: VxlanInfo) -> Message:
    """Sets a device's underlay, address or learning; the rest cannot change (drivers/net/vxlan, vxlan_nl2conf)."""
    payload = IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name)
    return (
        RTM_NEWLINK,
        0,
        payload + nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vxlan"), attribute(IFLA_INFO_DATA, _changeable(info))),
    )


def _fixed(info: VxlanInfo) -> bytes:
    data = attribute(IFLA_VXLAN_PORT, PORT.pack(info.port)) if info.port else b""
    return data + (attribute(IFLA_VXLAN_GBP, b"") if info.gbp else b"")


def _changeable(info: VxlanInfo) -> bytes:
    data = u32(IFLA_VXLAN_ID, info.vni) + u32(IFLA_VXLAN_LINK, info.link) + u8(IFLA_VXLAN_LEARNING, info.learning)
    return data + address(IFLA_VXLAN_LOCAL if info.local.family == 4 else IFLA_VXLAN_LOCAL6, info.local)


def set_free(name: str) -> Message:
    """Removes the link from its master."""
    return RTM_SETLINK, 0, IFINFO.pack(AF_UNSPEC, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + u32(IFLA_MASTER, 0)


def parse_vxlan(data: bytes) -> VxlanInfo | None:
    """Reads an answer about a link; returns None if it is not a VXLAN device."""
    info = attributes(attributes(data, IFINFO.size).get(IFLA_LINKINFO, b""))
    if info.get(IFLA_INFO_KIND, b"").rstrip(b"\0") != b"vxlan":
        return None
    attrs = attributes(info.get(IFLA_INFO_DATA, b""))
    local = attrs.get(IFLA_VXLAN_LOCAL) or attrs.get(IFLA_VXLAN_LOCAL6) or bytes(4)
    return VxlanInfo(
        vni=int.from_bytes(attrs.get(IFLA_VXLAN_ID, b""), byteorder),
        link=int.from_bytes(attrs.get(IFLA_VXLAN_LINK, b""), byteorder),
        local=ip_of(local),
        port=int.from_bytes(attrs.get(IFLA_VXLAN_PORT, b""), "big"),
        learning=attrs.get(IFLA_VXLAN_LEARNING, b"\0") != b"\0",
        gbp=IFLA_VXLAN_GBP in attrs,
    )


def _neighbour(family: int, ifindex: int, flags: int, ip: IP, mac: bytes) -> bytes:
    head = NDMSG.pack(family, ifindex, NUD_PERMANENT, flags, 0)
    return head + address(NDA_DST, ip) + attribute(NDA_LLADDR, mac)


def set_neighbour(ifindex: int, ip: IP, mac: bytes) -> Message:
    return RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _neighbour(address_family(ip.family), ifindex, 0, ip, mac)


def delete_neighbour(ifindex: int, ip: IP, mac: bytes) -> Message:
    return RTM_DELNEIGH, 0, _neighbour(address_family(ip.family), ifindex, 0, ip, mac)


def set_fdb_entry(ifindex: int, ip: IP, mac: bytes) -> Message:
    """Sets the FDB entry: frames for the MAC address are sent to this VTEP alone."""
    return RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, _neighbour(AF_BRIDGE, ifindex, NTF_SELF, ip, mac)


def delete_fdb_entry(ifindex: int, ip: IP, mac: bytes) -> Message:
    return RTM_DELNEIGH, 0, _neighbour(AF_BRIDGE, ifindex, NTF_SELF, ip, mac)


def routes_by(protocol: int, family: int) -> tuple[int, bytes]:
    """Returns a dump of the main table's routes of all kinds with a protocol number (rtnetlink(7)); 0: of any. The
    kernel filters.
    """
    return RTM_GETROUTE, RTMSG.pack(address_family(family), 0, 0, 0, RT_TABLE_MAIN, protocol, 0, 0, 0)


def neighbours_of(ifindex: int, family: int) -> tuple[int, bytes]:
    """Returns a dump of one link's neighbours; the kernel filters."""
    return RTM_GETNEIGH, NDMSG.pack(address_family(family), 0, 0, 0, 0) + u32(NDA_IFINDEX, ifindex)


def fdb_of(ifindex: int) -> tuple[int, bytes]:
    """Returns a dump of one device's FDB; the kernel filters (net/core/rtnetlink.c, rtnl_fdb_dump)."""
    return RTM_GETNEIGH, NDMSG.pack(AF_BRIDGE, ifindex, 0, 0, 0)


def parse_neighbour(data: bytes) -> Neighbour | None:
    """Returns None for entries without an IP address; an unresolved MAC address is empty."""
    _, ifindex, state, _, _ = unpacked(NDMSG, data)
    attrs = attributes(data, NDMSG.size)
    ip = attrs.get(NDA_DST)
    if ip is None:
        return None
    plain = attrs.keys().isdisjoint((NDA_PORT, NDA_VNI, NDA_IFINDEX))
    return Neighbour(ifindex, ip_of(ip), attrs.get(NDA_LLADDR, b""), bool(state & NUD_PERMANENT), plain)


def set_route(dst: Net, gw: IP, ifindex: int, protocol: int, on_link: bool) -> Message:
    """Sets the route; it replaces any other to the destination."""
    scope = _interior_scope(dst) if on_link and dst.family == 4 else SCOPE_UNIVERSE
    flags = RTNH_F_ONLINK if on_link else 0
    return RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(dst, gw, ifindex, protocol, scope, flags)


def _interior_scope(dst: Net) -> int:
    """Returns one of the scopes that are free to use, which interior routes may have (linux/rtnetlink.h).

    The kernel looks for an equal next hop among all of one protocol, scope, source, metric and interface
    (net/ipv4/fib_semantics.c, fib_info_hashfn_1): with one scope, a route beside 5,000 takes 0.13 ms, else 0.005.
    """
    return 1 + (dst.ip.value >> dst.ip.bits - dst.prefix) % INTERIOR_SCOPES


def delete_route(dst: Net, gw: IP | None, ifindex: int, protocol: int) -> Message:
    """Deletes the route with this next hop alone, whatever its scope; protocol 0: of any."""
    return RTM_DELROUTE, 0, _route(dst, gw, ifindex, protocol, SCOPE_NOWHERE)


def delete_kernel_route(route: KernelRoute) -> Message:
    """Deletes one route of several to its destination; without a next hop the kernel takes all hops of the route."""
    dst, protocol, kind = route.dst, route.protocol, route.kind
    head = RTMSG.pack(address_family(dst.family), dst.prefix, 0, 0, RT_TABLE_MAIN, protocol, SCOPE_NOWHERE, kind, 0)
    hop = address(RTA_GATEWAY, route.gw) if route.gw and route.gw.family == dst.family else b""
    hop += u32(RTA_OIF, route.ifindex) if route.ifindex and kind == RTN_UNICAST else b""
    return RTM_DELROUTE, 0, head + address(RTA_DST, dst.ip) + u32(RTA_PRIORITY, route.priority) + hop


def new_blackhole(dst: Net, protocol: int) -> Message:
    """Adds a route that drops packets without a better route; the kernel answers EEXIST if it exists."""
    return RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, _blackhole(dst, protocol)


def delete_blackhole(dst: Net, protocol: int) -> Message:
    return RTM_DELROUTE, 0, _blackhole(dst, protocol)


def _blackhole(dst: Net, protocol: int) -> bytes:
    head = RTMSG.pack(
        address_family(dst.family), dst.prefix, 0, 0, RT_TABLE_MAIN, protocol, SCOPE_UNIVERSE, RTN_BLACKHOLE, 0
    )
    return head + address(RTA_DST, dst.ip) + u32(RTA_PRIORITY, LAST_METRIC)


def _route(dst: Net, gw: IP | None, ifindex: int, protocol: int, scope: int, flags: int = 0) -> bytes:
    head = RTMSG.pack(address_family(dst.family), dst.prefix, 0, 0, RT_TABLE_MAIN, protocol, scope, RTN_UNICAST, flags)
    return head + address(RTA_DST, dst.ip) + (address(RTA_GATEWAY, gw) if gw else b"") + u32(RTA_OIF, ifindex)


def parse_kernel_route(data: bytes) -> KernelRoute:
    family, prefix, sources, tos, table, protocol, _, kind, flags = unpacked(RTMSG, data)
    attrs = attributes(data, RTMSG.size)
    gw, link = attrs.get(RTA_GATEWAY) or attrs.get(RTA_VIA, b"")[VIA_FAMILY_BYTES:], attrs.get(RTA_OIF)
    if RTA_NH_ID in attrs:  # such a route is not found by its hops (net/ipv4/fib_semantics.c, fib_nh_match)
        gw = link = b""
    dst = net_of(ip_of(attrs.get(RTA_DST) or unspecified(family)), prefix)
    return KernelRoute(
        dst=dst,
        gw=ip_of(gw) if gw else None,
        ifindex=int.from_bytes(link, byteorder) if link else 0,
        main=table == RT_TABLE_MAIN and not sources and not tos,
        protocol=protocol,
        on_link=bool(flags & RTNH_F_ONLINK),
        is_plain=RTA_METRICS not in attrs and RTA_PREFSRC not in attrs,
        priority=int.from_bytes(attrs.get(RTA_PRIORITY, b""), byteorder),
        kind=kind,
    )


def described(message: Message) -> str:
    """Returns a message of this file as a command of ip(8) or bridge(8)."""
    kind, _, payload = message
    verb = {RTM_NEWROUTE: "ip route replace", RTM_DELROUTE: "ip route delete"}.get(kind)
    if verb is not None:
        route = parse_kernel_route(payload)
        kind_text = "blackhole " if route.is_blackhole else ""
        return f"{verb} {kind_text}{route.dst.text}" + (f" via {route.gw.text}" if route.gw else "")
    entry = parse_neighbour(payload)
    verb = "replace" if kind == RTM_NEWNEIGH else "delete"
    if entry is None:
        return f"neighbour {verb}"
    if payload[0] == AF_BRIDGE:
        return f"bridge fdb {verb} {mac_text(entry.mac)} dst {entry.ip.text}"
    return f"ip neighbour {verb} {entry.ip.text} lladdr {mac_text(entry.mac)}"
