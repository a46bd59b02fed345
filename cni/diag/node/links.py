"""The network interfaces of this namespace and their addresses, by pyroute2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator


class Link(Record):
    """An interface; `alias` and `kind` may be empty."""

    ifindex: int
    name: str
    kind: str
    alias: str
    up: bool


def links() -> list[Link]:
    """Returns all interfaces. Raises OSError."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        return list(_links(route))


def addresses() -> list[tuple[int, str]]:
    """Returns the index of an interface and an address with its prefix length, for each address. Raises OSError."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        messages = [*route.get_addr()]
    return [
        (each["index"], f"{each.get_attr('IFA_LOCAL') or each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}")
        for each in messages
    ]


def _links(route: Any) -> Iterator[Link]:
    for message in route.get_links():
        information = message.get_attr("IFLA_LINKINFO")
        yield Link(
            message["index"],
            message.get_attr("IFLA_IFNAME") or "",
            (information.get_attr("IFLA_INFO_KIND") if information else "") or "",
            message.get_attr("IFLA_IFALIAS") or "",
            bool(message["flags"] & 1),  # IFF_UP
        )
