"""The isolation feature (ingressPolicy of `firewall`): of bridges from each other, and of ports of one bridge."""

from __future__ import annotations

from cni.plan.nftables import INET, TABLE, RulesetFragment
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.nftrule import Table

CHAIN = "isolation"
ISOLATING, SAME_BRIDGE, ISOLATED = "isolating", "same_bridge", "isolated"


class Isolation(Record):
    """Isolation of a bridge: its packets cannot enter another isolated bridge, nor the reverse; with `within`, they
    cannot return to it either. Shared by the containers of the bridge, so DEL leaves it.
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
    return RulesetFragment(INET, (CHAIN,), _table)


def _table() -> Table:
    from cni.plan.nftrule import DROP, FILTER, RETURN, Chain, Hook, Lookup, NamedSet, Rule, Table

    pair = "iifname . oifname"
    sets = NamedSet(ISOLATING, "ifname"), *[NamedSet(name, "ifname . ifname") for name in (SAME_BRIDGE, ISOLATED)]
    rules = (
        Rule((Lookup(pair, ISOLATED), DROP)),
        Rule((Lookup(pair, SAME_BRIDGE), RETURN)),
        Rule((Lookup("iifname", ISOLATING), Lookup("oifname", ISOLATING), DROP)),
    )
    return Table("inet", TABLE, sets, (Chain(CHAIN, rules, Hook("filter", "forward", FILTER)),))
