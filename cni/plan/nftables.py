"""podwire's tables: their names, and the parts of them that are loaded together, when one is missing.

Each feature's rules are in the feature's file, as values (cni.plan.nftrule). Every part can be loaded again at any
time: what exists stays, rules are flushed and written again within the same transaction, so that connection tracking is
never without a NAT rule in between.
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.plan.nftrule import Table

TABLE = "podwire"
INET, BRIDGE = f"inet {TABLE}", f"bridge {TABLE}"
PROTOCOL = {4: "ip", 6: "ip6"}
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
ALLOWED, GUARDED = "allowed", "guarded"  # the sets of the spoof check
# The sets of the source check, in table bridge and in table inet.
CHECKED, SOURCES, TARGETS = "checked", {4: "sources4", 6: "sources6"}, "targets6"
ROUTED, BRIDGED = "routed", "bridged"


class RulesetFragment(Record):
    """Rules that are loaded together: none of `chains` may be without rules. `content` makes the values, which takes
    modules that only the first ADD after boot loads.
    """

    table: str
    chains: tuple[str, ...]
    content: Callable[[], Table]


def masquerade_map(family: int) -> str:
    """Returns the name of the map from addresses to their subnets' chains."""
    return f"masquerade{family}"


def standby_map(name: str) -> str:
    """Returns the name of the map beside a map of ports: attachments that take over when the port's holder is gone."""
    return f"standby_{name}"
