"""Masquerading: one element for each address, and the rules that all of them share."""

from __future__ import annotations

from cni.effects import Effect, nft_elements
from cni.effects.nft_socket import MASQUERADE_SETS
from cni.kernel.nft import Element
from cni.plan.masquerade import Masquerade, masquerade_chain, ruleset
from cni.plan.nftables import INET, masquerade_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import SetRef


def _element(op: Masquerade) -> tuple[SetRef, Element]:
    set_ref = MASQUERADE_SETS[masquerade_map(op.ip.family)]
    return set_ref, Element(op.ip.packed, masquerade_chain(op.address), op.label)


def apply(host: Host, op: Masquerade, journal: Journal) -> None:
    if not nft_elements.is_loaded(host, ruleset([op.address])):
        _restore(host, op, journal)
    nft_elements.add_owned(host, *_element(op), journal)


def _restore(host: Host, op: Masquerade, journal: Journal) -> None:
    """Loads the rules if they are missing, with the addresses in the aliases of all other host interfaces."""
    others = [
        Masquerade(address, alias.label)
        for _, alias in nft_elements.attached(host)
        if alias.ip_masq and alias.label != op.label
        for address in alias.addresses
    ]

    def lost() -> list[tuple[SetRef, Element]]:
        elements = [_element(other) for other in others if other.ip != op.ip]
        return [owned for owned in elements if host.nft.find(*owned) is None]

    nft_elements.ensure(host, ruleset([op.address, *[other.address for other in others]]), lost, journal)


def release(host: Host, op: Masquerade) -> None:
    host.nft.remove(*_element(op))


def differs(host: Host, op: Masquerade) -> str:
    set_ref, element = _element(op)
    if host.nft.find(set_ref, element) != element:
        return f"the masquerade of {op.ip.text} is gone from table {INET}"
    if not nft_elements.is_loaded(host, ruleset([op.address])):
        return f"table {INET} has lost its rules"
    return ""


EFFECTS = {
    "Masquerade": Effect(apply, release, differs),
}
