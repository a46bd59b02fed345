"""The source check: elements in podwire's nftables tables, all of a container's in one transaction."""

from __future__ import annotations

from errno import EEXIST

from cni.effects import Effect, nft_elements
from cni.effects.nft_socket import FAMILIES, SOURCE_SETS
from cni.kernel import nft
from cni.kernel.nft import Element
from cni.plan.nftables import BRIDGED, CHECKED, ROUTED, SOURCES, TARGETS
from cni.plan.sourcecheck import SourceGuard, rulesets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import SetRef
    from cni.plan.nftables import RulesetFragment

IFNAME_BYTES = 16


def _elements(op: SourceGuard) -> list[tuple[SetRef, Element]]:
    """Returns the elements, the interface's own last: from then on its packets are checked."""
    name = _key(op.host_interface)
    port = Element(name, "", op.label)
    if op.routed:
        return [(SOURCE_SETS[ROUTED], port)]
    owned = []
    for ip in op.sources:
        address = Element(name + ip.packed, "", op.label)
        owned.append((SOURCE_SETS[SOURCES[ip.family]], address))
        if ip.family == 6:
            owned.append((SOURCE_SETS[TARGETS], address))
    return [*owned, (SOURCE_SETS[BRIDGED], port), (SOURCE_SETS[CHECKED], port)]


def _key(interface: str) -> bytes:
    return interface.encode().ljust(IFNAME_BYTES, b"\0")


def apply(host: Host, op: SourceGuard, journal: Journal) -> None:
    """Adds the elements. Those of the interface that are there are left by an attachment of the same name."""
    for part in rulesets(routed=op.routed):
        _ensure(host, op, part, journal)
    journal.add(lambda: release(host, op))
    added = [nft.add_element(*owned) for owned in _elements(op)]
    refusal = host.nft.change(*added)
    if refusal is not None and refusal.errno == EEXIST:
        _release_all(host, op.host_interface)
        refusal = host.nft.change(*added)
    if refusal is not None:
        raise refusal


def _ensure(host: Host, op: SourceGuard, part: RulesetFragment, journal: Journal) -> None:
    nft_elements.ensure(host, part, lambda: _lost(host, op, FAMILIES[part.table]), journal)


def _lost(host: Host, op: SourceGuard, family: int) -> list[tuple[SetRef, Element]]:
    """Returns the missing elements of all other attachments in this family's table, read from their aliases."""
    guards = [
        SourceGuard(name, alias.sources, not alias.further_sources, alias.label)
        for name, alias in nft_elements.attached(host)
        if alias.further_sources is not None and name != op.host_interface
    ]
    owned = [owned for guard in guards for owned in _elements(guard) if owned[0].family == family]
    return [(set_ref, element) for set_ref, element in owned if host.nft.find(set_ref, element) is None]


def release(host: Host, op: SourceGuard) -> None:
    """Removes the elements; if they are not those that ADD would make now, all of the interface are searched for."""
    if not host.nft.remove_all(_elements(op)):
        _release_all(host, op.host_interface)


def _release_all(host: Host, interface: str) -> None:
    for set_ref in SOURCE_SETS.values():
        for element in host.nft.elements(set_ref):
            if element.key.startswith(_key(interface)):
                host.nft.remove(set_ref, element)


def differs(host: Host, op: SourceGuard) -> str:
    if any(host.nft.find(set_ref, element) != element for set_ref, element in _elements(op)):
        return f"the source check of {op.host_interface} lacks elements"
    for part in rulesets(routed=op.routed):
        if not nft_elements.is_loaded(host, part):
            return f"table {part.table} has lost its rules"
    return ""


EFFECTS = {
    "SourceGuard": Effect(apply, release, differs),
}
