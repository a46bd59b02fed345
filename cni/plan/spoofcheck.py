"""The spoof check: frames of a container with another source MAC address than its own are dropped."""

from __future__ import annotations

from cni.plan.nftables import ALLOWED, BRIDGE, GUARDED, TABLE, RulesetFragment
from cni.protocol.address import mac_text
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.nftrule import Table

CHAIN = "prerouting"


class SpoofGuard(Record):
    """The spoof check of a port: frames from it with another source address than `mac` are dropped."""

    host_interface: str
    mac: bytes
    label: str

    def describe(self) -> str:
        key = f"{self.host_interface} . {mac_text(self.mac)}"
        return f"nft add element bridge podwire allowed {{ {key} }}"


def ruleset() -> RulesetFragment:
    """Returns the sets of guarded ports and of their allowed source addresses, and the rule that drops all others."""
    return RulesetFragment(BRIDGE, (CHAIN,), _table)


def _table() -> Table:
    from cni.plan.nftrule import BRIDGE_DSTNAT, DROP, Chain, Hook, Lookup, NamedSet, Rule, Table

    sets = NamedSet(GUARDED, "ifname"), NamedSet(ALLOWED, "ifname . ether_addr")
    dropping = Rule((Lookup("iifname", GUARDED), Lookup("iifname . ether saddr", ALLOWED, negated=True), DROP))
    return Table("bridge", TABLE, sets, (Chain(CHAIN, (dropping,), Hook("filter", "prerouting", BRIDGE_DSTNAT)),))
