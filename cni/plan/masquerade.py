"""The masquerade feature (ipMasq): one element of a map for each address, whatever the number of containers."""

from __future__ import annotations

from cni.plan.nftables import ADDRESS_TYPE, INET, PROTOCOL, TABLE, RulesetFragment, masquerade_map
from cni.protocol.address import MULTICAST, parse_net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.plan.attachment import Attachment
    from cni.plan.nftrule import Chain, Table
    from cni.plan.operations import Operation
    from cni.protocol.address import IP, Net

POSTROUTING = "postrouting"


class Masquerade(Record):
    """Source NAT to the host's address for packets of `address.ip` that leave its subnet."""

    address: Net
    label: str

    @property
    def ip(self) -> IP:
        return self.address.ip

    def describe(self) -> str:
        element = f"{self.ip.text} : jump {masquerade_chain(self.address)}"
        return f"nft add element inet podwire masquerade{self.address.family} {{ {element} }}"


def masquerade_chain(address: Net) -> str:
    """Returns the name of the subnet's chain; nft accepts letters, digits, `/`, `.`, `_` and `-` in a name."""
    return f"masquerade-{address.network.text.replace(':', '_')}"


def operations(attachment: Attachment) -> tuple[Operation, ...]:
    return tuple([Masquerade(ip.address, attachment.owner.label) for ip in attachment.lease.ips])


def ruleset(addresses: Sequence[Net]) -> RulesetFragment:
    """Returns the maps from addresses to their subnets' chains, and these chains."""
    return RulesetFragment(INET, (POSTROUTING, *map(masquerade_chain, addresses)), lambda: _table(addresses))


def _table(addresses: Sequence[Net]) -> Table:
    from cni.plan.nftrule import SRCNAT, Chain, Hook, NamedSet, Rule, Table, VerdictMap

    maps = [NamedSet(masquerade_map(family), ADDRESS_TYPE[family], "verdict") for family in (4, 6)]
    jumps = [Rule((VerdictMap(f"{PROTOCOL[family]} saddr", masquerade_map(family)),)) for family in (4, 6)]
    chains = {masquerade_chain(address): _chain(address) for address in addresses}
    entrance = Chain(POSTROUTING, tuple(jumps), Hook("nat", "postrouting", SRCNAT))
    return Table("inet", TABLE, tuple(maps), (entrance, *chains.values()))


def _chain(address: Net) -> Chain:
    from cni.plan.nftrule import RETURN, AnonymousSet, Chain, Masq, Match, Rule

    within = AnonymousSet((address.network, parse_net(MULTICAST[address.family])))
    stays = Rule((Match(f"{PROTOCOL[address.family]} daddr", within), RETURN))
    return Chain(masquerade_chain(address), (stays, Rule((Masq(),))))
