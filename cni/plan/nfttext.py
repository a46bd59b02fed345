"""The static part of podwire's nftables as text for `nft -f`: loaded when missing, in one transaction.

Each feature's text is in the feature's file. Every text can be loaded again at any time: what exists stays, rules are
flushed and written anew within the same transaction, so that connection tracking is never without a NAT rule in
between. A text brings the elements that it is given, and leaves those that are there.
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TABLE = "podwire"
INET, BRIDGE = f"inet {TABLE}", f"bridge {TABLE}"
PROTOCOL = {4: "ip", 6: "ip6"}
ADDRESS_TYPE = {4: "ipv4_addr", 6: "ipv6_addr"}
ALLOWED, GUARDED = "allowed", "guarded"  # the sets of the spoof check


class RulesetFragment(Record):
    """Rules that are loaded together: none of `chains` may be without rules, `lines` returns the commands."""

    table: str
    chains: tuple[str, ...]
    lines: Callable[[], list[str]]

    def text(self, elements: Iterable[str]) -> str:
        return "\n".join([f"add table {self.table}", *dict.fromkeys(self.lines()), *elements]) + "\n"


def chain_lines(name: str, *rules: str, hook: str = "", table: str = INET) -> list[str]:
    """Returns the commands for a chain with these rules and no others; `hook` makes it a base chain."""
    base = f" {{ type {hook} ; }}" if hook else ""
    chain = f"{table} {name}"
    return [f"add chain {chain}{base}", f"flush chain {chain}", *[f"add rule {chain} {rule}" for rule in rules]]


def masquerade_map(family: int) -> str:
    """Returns the name of the map from addresses to their subnets' chains."""
    return f"masquerade{family}"


def standby_map(name: str) -> str:
    """Returns the name of the map beside a map of ports: attachments that take over when the port's holder is gone."""
    return f"standby_{name}"
