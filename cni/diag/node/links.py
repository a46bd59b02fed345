"""The network interfaces of this namespace and their addresses, by pyroute2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.diag.node.rtnetlink import opened_rtnetlink
from cni.protocol.address import address_family
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

VXLAN = "vxlan"
OVERHEAD = {4: 50, 6: 70}  # bytes of a VXLAN packet before the inner IP header: IP, UDP, VXLAN, Ethernet


class Tunnel(Record):
    """A VXLAN device's VNI, UDP port, IP version outside, and the index of the interface below; 0 if it is bound to
    none. One with `external` metadata cannot share its port with others.
    """

    vni: int
    port: int
    family: int
    underlay: int
    external: bool


class Link(Record):
    """An interface; `alias` and `kind` may be empty. `tunnel` is None if it is not a VXLAN device."""

    ifindex: int
    name: str
    kind: str
    alias: str
    up: bool
    mtu: int
    tunnel: Tunnel | None = None


def links() -> list[Link]:
    """Returns all interfaces. Raises OSError."""
    with opened_rtnetlink() as route:
        return list(_links(route))


class DefaultRoute(Record):
    """A default route. `protocol` is that of rtnetlink(7), RTPROT_*."""

    ifindex: int
    protocol: int


def default_routes(family: int) -> list[DefaultRoute]:
    """Returns the default routes of an IP version in all tables. Raises OSError."""
    with opened_rtnetlink() as route:
        messages = [each for each in route.get_routes(family=address_family(family)) if each["dst_len"] == 0]
    return [DefaultRoute(each.get_attr("RTA_OIF") or 0, each["proto"]) for each in messages]


def addresses() -> list[tuple[int, str]]:
    """Returns the index of an interface and an address with its prefix length, for each address. Raises OSError."""
    with opened_rtnetlink() as route:
        messages = [*route.get_addr()]
    return [
        (each["index"], f"{each.get_attr('IFA_LOCAL') or each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}")
        for each in messages
    ]


def _links(route: Any) -> Iterator[Link]:
    for message in route.get_links():
        information = message.get_attr("IFLA_LINKINFO")
        kind = (information.get_attr("IFLA_INFO_KIND") if information else "") or ""
        data = information.get_attr("IFLA_INFO_DATA") if kind == VXLAN else None
        yield Link(
            message["index"],
            message.get_attr("IFLA_IFNAME") or "",
            kind,
            message.get_attr("IFLA_IFALIAS") or "",
            bool(message["flags"] & 1),  # IFF_UP
            message.get_attr("IFLA_MTU") or 0,
            _tunnel(data) if data else None,
        )


def _tunnel(data: Any) -> Tunnel:
    local6 = data.get_attr("IFLA_VXLAN_LOCAL6") or data.get_attr("IFLA_VXLAN_GROUP6")
    return Tunnel(
        data.get_attr("IFLA_VXLAN_ID") or 0,
        data.get_attr("IFLA_VXLAN_PORT") or 0,
        6 if local6 else 4,
        data.get_attr("IFLA_VXLAN_LINK") or 0,
        bool(data.get_attr("IFLA_VXLAN_COLLECT_METADATA")),
    )
