"""Masquerading: one element for each address, and the rules that all of them share."""

from __future__ import annotations

from cni.kernel import nft
from cni.kernel.nfnl import Element
from cni.kernel.nftables import MASQUERADES
from cni.plan import ruleset
from cni.plan.masquerade import Masquerade, masquerade_chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.journal import Journal
    from cni.kernel.machine import Machine
    from cni.kernel.nfnl import Place


def _element(op: Masquerade) -> tuple[Place, Element]:
    place = MASQUERADES[ruleset.masquerade_map(op.ip.family)]
    return place, Element(op.ip.packed, masquerade_chain(op.address), op.label)


def apply(machine: Machine, op: Masquerade, journal: Journal) -> None:
    if not nft.is_whole(machine, ruleset.masquerade([op.address])):
        _restore(machine, op, journal)
    nft.hold(machine, *_element(op), journal)


def _restore(machine: Machine, op: Masquerade, journal: Journal) -> None:
    """With the subnets of all who are attached: their host interfaces' aliases name them."""
    held = [
        Masquerade(address, alias.label)
        for _, alias in nft.attached(machine)
        if alias.masqueraded and alias.label != op.label
        for address in alias.addresses
    ]

    def lost() -> list[str]:
        missing = [one for one in held if machine.nft.find(*_element(one)) is None and one.ip != op.ip]
        return [ruleset.masquerade_element(one.address, one.label) for one in missing]

    nft.ensure(machine, ruleset.masquerade([op.address, *[one.address for one in held]]), lost, journal)


def release(machine: Machine, op: Masquerade) -> None:
    machine.nft.remove(*_element(op))


def differs(machine: Machine, op: Masquerade) -> str:
    place, element = _element(op)
    if machine.nft.find(place, element) != element:
        return f"the masquerade of {op.ip.text} is gone from table {ruleset.INET}"
    if not nft.is_whole(machine, ruleset.masquerade([op.address])):
        return f"table {ruleset.INET} has lost its rules"
    return ""
