"""Guards against spoofed source MAC addresses, in nftables' table for bridges."""

from __future__ import annotations

from cni.kernel import nft
from cni.kernel.nfnl import Element
from cni.kernel.nftables import GUARDS
from cni.plan import ruleset
from cni.plan.spoofcheck import SpoofGuard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.journal import Journal
    from cni.kernel.machine import Machine
    from cni.kernel.nfnl import Place

IFNAME_BYTES = 16


def _elements(op: SpoofGuard) -> list[tuple[Place, Element]]:
    """In a concatenation every part is padded to four bytes (libnftnl)."""
    name = op.host_interface.encode().ljust(IFNAME_BYTES, b"\0")
    allowed = Element(name + op.mac.ljust(8, b"\0"), "", op.label)
    return [(GUARDS[ruleset.ALLOWED], allowed), (GUARDS[ruleset.GUARDED], Element(name, "", op.label))]


def apply(machine: Machine, op: SpoofGuard, journal: Journal) -> None:
    nft.ensure(machine, ruleset.spoof_guard(), lambda: _lost(machine, op), journal)
    for place, element in _elements(op):
        nft.hold(machine, place, element, journal)


def _lost(machine: Machine, op: SpoofGuard) -> list[str]:
    """The guards of all others who are attached, by their host interfaces' aliases."""
    guards = [
        SpoofGuard(name, alias.guarded, alias.label)
        for name, alias in nft.attached(machine)
        if alias.guarded and name != op.host_interface
    ]
    missing = [one for one in guards if any(machine.nft.find(*element) is None for element in _elements(one))]
    return [line for one in missing for line in ruleset.guard_elements(*one)]


def release(machine: Machine, op: SpoofGuard) -> None:
    """By the port alone where the container has another address than DEL is told: then all guarded ports are read."""
    elements = _elements(op)
    if machine.nft.find(*elements[0]) == elements[0][1]:
        for place, element in elements:
            machine.nft.remove(place, element)
        return
    name = elements[1][1].key
    for place, _ in elements:
        for element in machine.nft.elements(place):
            if element.key.startswith(name):
                machine.nft.remove(place, element)


def differs(machine: Machine, op: SpoofGuard) -> str:
    if any(machine.nft.find(place, element) != element for place, element in _elements(op)):
        return f"the guard against spoofing on {op.host_interface} is gone from table {ruleset.BRIDGE}"
    if not nft.is_whole(machine, ruleset.spoof_guard()):
        return f"table {ruleset.BRIDGE} has lost its rules"
    return ""
