"""The isolation feature (ingressPolicy of `firewall`): of bridges from each other, and of ports of one bridge."""

from __future__ import annotations

from cni.plan.nfttext import INET, RulesetFragment, chain_lines
from cni.protocol.record import Record

CHAIN = "isolation"
ISOLATING, SAME_BRIDGE, ISOLATED = "isolating", "same_bridge", "isolated"


class Isolation(Record):
    """Packets from `bridge` cannot enter another bridge that isolates, nor the reverse; with `within`, they cannot
    return to it either. Shared by the containers of the bridge, so DEL leaves it.
    """

    bridge: str
    within: bool

    def describe(self) -> str:
        within = f", isolated {{ {self.bridge} . {self.bridge} }}" if self.within else ""
        return f"nft add element inet podwire isolating {{ {self.bridge} }}{within}"


class IsolatedPort(Record):
    """A port of a bridge exchanges no frames with other isolated ones, which rules see only where br_netfilter shows
    them frames; it goes with the interface.
    """

    port: str

    def describe(self) -> str:
        return f"bridge link set dev {self.port} isolated on"


def ruleset() -> RulesetFragment:
    """Returns the sets of isolating bridges, and of pairs of a bridge with itself: packets within one bridge may pass,
    unless it is isolated.

    A drop here is final, whatever other chains accept (nftables(8), verdict statements).
    """

    def lines() -> list[str]:
        pair = "type ifname . ifname"
        return [
            f"add set {INET} {ISOLATING} {{ type ifname ; }}",
            *[f"add set {INET} {name} {{ {pair} ; }}" for name in (SAME_BRIDGE, ISOLATED)],
            *chain_lines(
                CHAIN,
                f"iifname . oifname @{ISOLATED} drop",
                f"iifname . oifname @{SAME_BRIDGE} return",
                f"iifname @{ISOLATING} oifname @{ISOLATING} drop",
                hook="filter hook forward priority filter",
            ),
        ]

    return RulesetFragment(INET, (CHAIN,), lines)
