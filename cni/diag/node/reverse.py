"""Reverse path filter: would the kernel drop what comes in by an interface, because the way back leads elsewhere?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.node.rtnetlink import opened_rtnetlink
from cni.kernel import sysctl

if TYPE_CHECKING:
    from cni.protocol.address import IP

STRICT = 1  # RFC 3704, 2.2; kernel ip-sysctl.rst: the larger of both values counts


def drops_answers(source: IP, own: IP, interface: str) -> bool:
    """Returns True if packets from `source` to `own` that arrive by the interface are dropped. IPv6 has no such filter.
    Raises OSError.
    """
    if source.family != 4 or _mode(interface) != STRICT:
        return False
    try:
        with opened_rtnetlink() as route:
            index = route.link_lookup(ifname=interface)
            [message] = route.route("get", dst=source.text, src=own.text)
    except (OSError, ValueError):  # no route, no own address: not for this reason
        return False
    return message.get_attr("RTA_OIF") not in index


def _mode(interface: str) -> int:
    values = [sysctl.read(f"net/ipv4/conf/{name}/rp_filter") or "0" for name in ("all", interface)]
    return max(int(value) if value.isdecimal() else 0 for value in values)
