"""The masquerade feature (ipMasq): one element of a map for each address, whatever the number of containers."""

from __future__ import annotations

from cni.plan.nfttext import ADDRESS_TYPE, INET, PROTOCOL, RulesetFragment, chain_lines, masquerade_map
from cni.protocol.address import MULTICAST
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.plan.attachment import Attachment
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

    def lines() -> list[str]:
        maps = [(masquerade_map(family), ADDRESS_TYPE[family]) for family in (4, 6)]
        found = [f"add map {INET} {name} {{ type {address} : verdict ; }}" for name, address in maps]
        jumps = [f"{PROTOCOL[family]} saddr vmap @{masquerade_map(family)}" for family in (4, 6)]
        found += chain_lines(POSTROUTING, *jumps, hook="nat hook postrouting priority srcnat")
        for address in addresses:
            stays = f"{PROTOCOL[address.family]} daddr {{ {address.network.text}, {MULTICAST[address.family]} }} return"
            found += chain_lines(masquerade_chain(address), stays, "masquerade")
        return found

    return RulesetFragment(INET, (POSTROUTING, *map(masquerade_chain, addresses)), lines)


def element_text(address: Net, label: str) -> str:
    verdict = f'{address.ip.text} comment "{label}" : jump {masquerade_chain(address)}'
    return f"add element {INET} {masquerade_map(address.family)} {{ {verdict} }}"
