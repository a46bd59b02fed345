"""Reads rtnetlink's answers as records, the counterpart of cni.kernel.rtnl."""

from __future__ import annotations

from cni.kernel.netlink import U32, Malformed, attributes, each_attribute, unpacked
from cni.kernel.rtnl import (
    CACHE_INFO,
    IFA_ADDRESS,
    IFA_FLAGS,
    IFA_LOCAL,
    IFADDR,
    IFF_UP,
    IFINFO,
    IFLA_ADDRESS,
    IFLA_AF_SPEC,
    IFLA_BR_VLAN_FILTERING,
    IFLA_BRIDGE_VLAN_INFO,
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_MODE,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_LINK,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_MTU,
    IFLA_OPERSTATE,
    IFLA_TXQLEN,
    NEXTHOP,
    RTA_CACHEINFO,
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_MULTIPATH,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_TABLE,
    RTAX_ADVMSS,
    RTAX_MTU,
    RTMSG,
    RTPROT_KERNEL,
    RTPROT_RA,
    VLAN_INFO,
)
from cni.protocol.address import IP, IPV4_BYTES, IPV6_BYTES, Net, ip_family
from cni.protocol.record import Record


class Link(Record):
    """A link; `peer` is the other end's index, in the namespace of that end."""

    ifindex: int
    name: str
    kind: str
    mac: bytes
    mtu: int
    flags: int
    master: int
    peer: int
    operstate: int
    group: int
    alias: str
    vlan_filtering: bool
    hairpin: bool
    isolated: bool
    txqlen: int

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)


class AddressInfo(Record):
    ifindex: int
    address: Net
    flags: int


class RouteInfo(Record):
    """A unicast route; `ifindex` 0 if it has several next hops; `source`: the preferred source address."""

    dst: Net
    gw: IP | None
    ifindex: int
    priority: int
    table: int
    scope: int
    mtu: int
    advmss: int
    source: IP | None = None


def parse_link(data: bytes) -> Link:
    _, _, index, flags, _ = unpacked(IFINFO, data)
    attrs = attributes(data, IFINFO.size)
    info = attributes(attrs.get(IFLA_LINKINFO, b""))
    port = attributes(info.get(IFLA_INFO_SLAVE_DATA, b""))
    bridge = attributes(info.get(IFLA_INFO_DATA, b"")) if _string(info.get(IFLA_INFO_KIND)) == "bridge" else {}
    return Link(
        ifindex=index,
        name=_string(attrs.get(IFLA_IFNAME)),
        kind=_string(info.get(IFLA_INFO_KIND)),
        mac=attrs.get(IFLA_ADDRESS, b""),
        mtu=_u32(attrs.get(IFLA_MTU)),
        flags=flags,
        master=_u32(attrs.get(IFLA_MASTER)),
        peer=_u32(attrs.get(IFLA_LINK)),
        operstate=_u8(attrs.get(IFLA_OPERSTATE)),
        group=_u32(attrs.get(IFLA_GROUP)),
        alias=_string(attrs.get(IFLA_IFALIAS)),
        vlan_filtering=bridge.get(IFLA_BR_VLAN_FILTERING, b"\0") != b"\0",
        hairpin=port.get(IFLA_BRPORT_MODE, b"\0") != b"\0",
        isolated=port.get(IFLA_BRPORT_ISOLATED, b"\0") != b"\0",
        txqlen=_u32(attrs.get(IFLA_TXQLEN)),
    )


def parse_port_vlans(data: bytes) -> tuple[int, dict[int, int]]:
    """Returns (link index, VLAN identifier -> BRIDGE_VLAN_INFO_* flags)."""
    _, _, index, _, _ = unpacked(IFINFO, data)
    spec = attributes(data, IFINFO.size).get(IFLA_AF_SPEC, b"")
    vlans = [unpacked(VLAN_INFO, info) for kind, info in each_attribute(spec) if kind == IFLA_BRIDGE_VLAN_INFO]
    return index, {vid: flags for flags, vid in vlans}


def parse_address(data: bytes) -> AddressInfo:
    family, prefix, flags, _, index = unpacked(IFADDR, data)
    attrs = attributes(data, IFADDR.size)
    ip = attrs.get(IFA_LOCAL) or attrs.get(IFA_ADDRESS, b"")
    return AddressInfo(index, net_of(_ip(family, ip), prefix), _u32(attrs.get(IFA_FLAGS)) or flags)


def parse_route(data: bytes) -> RouteInfo:
    family, prefix, _, _, table, _, scope, _, _ = unpacked(RTMSG, data)
    attrs = attributes(data, RTMSG.size)
    metrics = attributes(attrs.get(RTA_METRICS, b""))
    gw, source = attrs.get(RTA_GATEWAY), attrs.get(RTA_PREFSRC)
    empty = unspecified(family)
    return RouteInfo(
        dst=net_of(_ip(family, attrs.get(RTA_DST, empty)), prefix),
        gw=_ip(family, gw) if gw else None,
        ifindex=_u32(attrs.get(RTA_OIF)),
        priority=_u32(attrs.get(RTA_PRIORITY)),
        table=_u32(attrs.get(RTA_TABLE)) or table,
        scope=scope,
        mtu=_u32(metrics.get(RTAX_MTU)),
        advmss=_u32(metrics.get(RTAX_ADVMSS)),
        source=_ip(family, source) if source else None,
    )


def parse_next_hops(data: bytes) -> list[RouteInfo]:
    """Returns the route once for each next hop: the kernel joins IPv6 routes that differ in nothing else."""
    route, hops = parse_route(data), attributes(data, RTMSG.size).get(RTA_MULTIPATH, b"")
    if not hops:
        return [route]
    routes = []
    while len(hops) >= NEXTHOP.size:
        length, ifindex = NEXTHOP.unpack_from(hops)
        if not NEXTHOP.size <= length <= len(hops):
            raise Malformed(f"a next hop of length {length}, with {len(hops)} bytes left")
        gw = attributes(hops[:length], NEXTHOP.size).get(RTA_GATEWAY)
        routes.append(route._replace(gw=ip_of(gw) if gw else None, ifindex=ifindex))
        hops = hops[length + 3 & ~3 :]
    return routes or [route]


def ip_of(packed: bytes) -> IP:
    """Returns the address of 4 or 16 bytes. Raises Malformed."""
    try:
        return IP.from_packed(packed)
    except ValueError as error:
        raise Malformed(str(error)) from None


def unspecified(address_family: int) -> bytes:
    """Returns 0.0.0.0 or ::, which a default route's attributes leave out."""
    return bytes(IPV4_BYTES if ip_family(address_family) == 4 else IPV6_BYTES)


def is_advertised(data: bytes) -> bool:
    """True if a router advertised the route: the default one, another, or that to a prefix. Raises Malformed."""
    protocol = unpacked(RTMSG, data)[5]
    if protocol != RTPROT_KERNEL:
        return bool(protocol == RTPROT_RA)
    info = attributes(data, RTMSG.size).get(RTA_CACHEINFO, b"")
    return len(info) >= CACHE_INFO.size and unpacked(CACHE_INFO, info)[0] > 0


def _ip(family: int, packed: bytes) -> IP:
    """Returns an address; those of other families than IP are shorter, and never searched. Raises Malformed."""
    version = ip_family(family)
    if len(packed) > IPV6_BYTES or (version == 4 and len(packed) != IPV4_BYTES):
        raise Malformed(f"an address of {len(packed)} bytes, of family {family}")
    return IP(version, int.from_bytes(packed, "big"))


def net_of(ip: IP, prefix: int) -> Net:
    if prefix > ip.bits:
        raise Malformed(f"a prefix of {prefix} bits")
    return Net(ip, prefix)


def _string(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode("utf-8", "surrogateescape")


def _u8(data: bytes | None) -> int:
    return data[0] if data else 0


def _u32(data: bytes | None) -> int:
    return int(unpacked(U32, data)[0]) if data else 0
