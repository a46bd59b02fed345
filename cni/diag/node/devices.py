"""The network of this namespace, for drawings: interfaces, addresses, routes, neighbours, FDB, VLANs, by pyroute2."""

from __future__ import annotations

import socket
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from cni.diag.node.links import addresses
from cni.diag.node.rtnetlink import opened_rtnetlink
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

IFF_UP, MAIN_TABLE, UNICAST = 1, 254, 1  # if.h; rtnetlink.h: RT_TABLE_MAIN, RTN_UNICAST
PORT_VLANS = 4  # rtnetlink.h, RTEXT_FILTER_BRVLAN_COMPRESSED
PVID, RANGE_BEGIN, RANGE_END = 2, 8, 16  # if_bridge.h, BRIDGE_VLAN_INFO_*
ONLY_DEFAULT = ("1",)  # what a port has that was put into no VLAN


class Device(Record):
    """An interface. `master` and `parent` are indexes, 0 for none; `parent` is what a VLAN or a tunnel is on, and 0 too
    where that is in another namespace. `vlan` is the ID of a VLAN's interface; `vni`, `port` and `local` are vxlan's.
    """

    ifindex: int
    name: str
    kind: str
    alias: str
    up: bool
    mtu: int
    mac: str
    master: int = 0
    parent: int = 0
    vlan: int = 0
    filters_vlans: bool = False
    vni: int = 0
    port: int = 0
    local: str = ""


class Route(Record):
    """A route of the main table by a gateway; the default route has an empty `subnet`."""

    subnet: str
    gateway: str
    protocol: int


class KernelState(Record):
    """The state of the network. `addresses` (with prefix length, none that are link-local), `routes` and `vlans` are by
    the interface's index; `neighbours` gives the MAC address of an index and an address, `fdb` the underlay's address
    of an index and a MAC address.
    """

    devices: tuple[Device, ...]
    addresses: Mapping[int, list[str]]
    routes: Mapping[int, list[Route]]
    neighbours: Mapping[tuple[int, str], str]
    fdb: Mapping[tuple[int, str], str]
    vlans: Mapping[int, tuple[str, ...]]


def read_kernel() -> KernelState:
    """Returns the state of this network namespace. Raises OSError."""
    own: dict[int, list[str]] = {}
    for ifindex, address in addresses():
        if not ip_interface(address).is_link_local:
            own.setdefault(ifindex, []).append(address)
    with opened_rtnetlink() as route:
        devices = tuple(map(_device, route.get_links()))
        families = (socket.AF_INET, socket.AF_INET6)
        routes: dict[int, list[Route]] = {}
        for family in families:
            messages = route.get_routes(family=family, table=MAIN_TABLE)  # of all where there is no IPv6
            for ifindex, each in _routes([message for message in messages if message["family"] == family]):
                routes.setdefault(ifindex, []).append(each)
        neighbours, fdb = _neighbours(route, {device.ifindex for device in devices if device.vni})
        filtering = {device.ifindex for device in devices if device.filters_vlans}
        vlans = _vlans(route, {device.ifindex for device in devices if device.master in filtering})
    return KernelState(devices, own, routes, neighbours, fdb, vlans)


def _neighbours(route: Any, tunnels: set[int]) -> tuple[dict[tuple[int, str], str], dict[tuple[int, str], str]]:
    """Returns the neighbours and the FDB of tunnels."""
    neighbours, fdb = {}, {}
    for message in [*route.get_neighbours(), *route.get_neighbours(family=socket.AF_BRIDGE)] if tunnels else ():
        ifindex, mac, address = message["ifindex"], message.get_attr("NDA_LLADDR"), message.get_attr("NDA_DST")
        if ifindex in tunnels and mac and address:
            if message["family"] == socket.AF_BRIDGE:
                fdb[ifindex, mac] = address
            else:
                neighbours[ifindex, address] = mac
    return neighbours, fdb


def _vlans(route: Any, ports: set[int]) -> dict[int, tuple[str, ...]]:
    messages = route.link("dump", family=socket.AF_BRIDGE, ext_mask=PORT_VLANS) if ports else ()
    vlans = {}
    for message in messages:
        if message["index"] in ports and (part := message.get_attr("IFLA_AF_SPEC")) is not None:
            items = part.get_attrs("IFLA_BRIDGE_VLAN_INFO")
            vlans[message["index"]] = vlan_ranges([(item["flags"], item["vid"]) for item in items])
    return vlans


def _device(message: Any) -> Device:
    information = message.get_attr("IFLA_LINKINFO")
    kind = (information.get_attr("IFLA_INFO_KIND") if information else "") or ""
    data = information.get_attr("IFLA_INFO_DATA") if information else None
    is_here = message.get_attr("IFLA_LINK_NETNSID") is None

    def of_kind(name: str) -> Any:
        return data.get_attr(name) if data is not None and hasattr(data, "get_attr") else None

    parent = of_kind("IFLA_VXLAN_LINK") if kind == "vxlan" else message.get_attr("IFLA_LINK")
    return Device(
        message["index"],
        message.get_attr("IFLA_IFNAME") or "",
        kind,
        message.get_attr("IFLA_IFALIAS") or "",
        bool(message["flags"] & IFF_UP),
        message.get_attr("IFLA_MTU") or 0,
        message.get_attr("IFLA_ADDRESS") or "",
        message.get_attr("IFLA_MASTER") or 0,
        (parent or 0) if is_here else 0,
        (of_kind("IFLA_VLAN_ID") or 0) if kind == "vlan" else 0,
        kind == "bridge" and bool(of_kind("IFLA_BR_VLAN_FILTERING")),
        (of_kind("IFLA_VXLAN_ID") or 0) if kind == "vxlan" else 0,
        (of_kind("IFLA_VXLAN_PORT") or 0) if kind == "vxlan" else 0,
        of_kind("IFLA_VXLAN_LOCAL") or of_kind("IFLA_VXLAN_LOCAL6") or "",
    )


def _routes(messages: Iterable[Any]) -> Iterator[tuple[int, Route]]:
    """Yields routes with the index of their interface."""
    for message in messages:
        subnet = message.get_attr("RTA_DST")
        for hop in message.get_attr("RTA_MULTIPATH") or [message]:
            gateway, ifindex = hop.get_attr("RTA_GATEWAY"), hop.get_attr("RTA_OIF") or hop.get("oif")
            if gateway and ifindex and message["type"] == UNICAST and message["table"] == MAIN_TABLE:
                text = f"{subnet}/{message['dst_len']}" if subnet else ""
                yield ifindex, Route(text, gateway, message["proto"])


def vlan_ranges(items: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    """Returns the VLANs of a port, as in `7`, `10-12`, from the kernel's flags and IDs; the one of untagged frames that
    arrive comes first. A port that has but the default VLAN has none.
    """
    first, native, ranges = 0, "", []
    for flags, vid in items:
        if flags & RANGE_BEGIN:
            first = vid
            continue
        text = f"{first}-{vid}" if flags & RANGE_END else str(vid)
        if flags & PVID:
            native = text
        else:
            ranges.append(text)
    ranges = [native, *ranges] if native else ranges
    return () if tuple(ranges) == ONLY_DEFAULT else tuple(ranges)
