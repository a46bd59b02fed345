"""rtnetlink's answers as records, the counterpart of cni.kernel.rtnl."""

from __future__ import annotations

from cni.kernel.netlink import U32, attributes, each_attribute
from cni.kernel.rtnl import (
    AF_INET,
    AF_INET6,
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
    IPV6_BYTES,
    NEXTHOP,
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
    VLAN_INFO,
)
from cni.spec.address import IP, Net
from cni.spec.record import Record


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
    """A unicast route; `ifindex` 0 where it has several next hops; `source`: the address that the host speaks from."""

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
        group=_u32(found.get(IFLA_GROUP)),
        alias=_string(found.get(IFLA_IFALIAS)),
        vlan_filtering=bridge.get(IFLA_BR_VLAN_FILTERING, b"\0") != b"\0",
        hairpin=port.get(IFLA_BRPORT_MODE, b"\0") != b"\0",
        isolated=port.get(IFLA_BRPORT_ISOLATED, b"\0") != b"\0",
        txqlen=_u32(found.get(IFLA_TXQLEN)),
    )


def parse_port_vlans(data: bytes) -> tuple[int, dict[int, int]]:
    """(link index, VLAN identifier -> BRIDGE_VLAN_INFO_* flags)."""
    _, _, index, _, _ = IFINFO.unpack_from(data)
    spec = attributes(data, IFINFO.size).get(IFLA_AF_SPEC, b"")
    vlans = [VLAN_INFO.unpack(info) for kind, info in each_attribute(spec) if kind == IFLA_BRIDGE_VLAN_INFO]
    return index, {vid: flags for flags, vid in vlans}


def parse_address(data: bytes) -> AddressInfo:
    family, prefix, flags, _, index = IFADDR.unpack_from(data)
    found = attributes(data, IFADDR.size)
    ip = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
    return AddressInfo(index, Net(_ip(family, ip), prefix), _u32(found.get(IFA_FLAGS)) or flags)


def parse_route(data: bytes) -> RouteInfo:
    family, prefix, _, _, table, _, scope, _, _ = RTMSG.unpack_from(data)
    found = attributes(data, RTMSG.size)
    metrics = attributes(found.get(RTA_METRICS, b""))
    gw, source = found.get(RTA_GATEWAY), found.get(RTA_PREFSRC)
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
        source=_ip(family, source) if source else None,
    )


def parse_ways(data: bytes) -> list[RouteInfo]:
    """The route once for each next hop: the kernel joins IPv6 routes that differ in nothing else."""
    route, hops = parse_route(data), attributes(data, RTMSG.size).get(RTA_MULTIPATH, b"")
    if not hops:
        return [route]
    ways = []
    while len(hops) >= NEXTHOP.size:
        length, ifindex = NEXTHOP.unpack_from(hops)
        gw = attributes(hops[:length], NEXTHOP.size).get(RTA_GATEWAY)
        ways.append(
            route._replace(gw=_ip(AF_INET6 if len(gw) == IPV6_BYTES else AF_INET, gw) if gw else None, ifindex=ifindex)
        )
        hops = hops[max(length + 3 & ~3, NEXTHOP.size) :]
    return ways


def _ip(family: int, packed: bytes) -> IP:
    return IP(4 if family == AF_INET else 6, int.from_bytes(packed, "big"))


def _string(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode("utf-8", "surrogateescape")


def _u32(data: bytes | None) -> int:
    return int(U32.unpack(data)[0]) if data else 0
