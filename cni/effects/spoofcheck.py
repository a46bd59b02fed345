"""The spoof check: elements in podwire's nftables table of the bridge family."""

from __future__ import annotations

from cni.effects import Effect, nft_elements
from cni.effects.nft_socket import SPOOFCHECK_SETS
from cni.kernel.nft import Element
from cni.plan.nftables import ALLOWED, BRIDGE, GUARDED
from cni.plan.spoofcheck import SpoofGuard, ruleset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import SetRef

IFNAME_BYTES = 16


def _elements(op: SpoofGuard) -> list[tuple[SetRef, Element]]:
    """Returns the element of each set; in a concatenation every part is padded to four bytes (libnftnl)."""
    name = op.host_interface.encode().ljust(IFNAME_BYTES, b"\0")
    allowed = Element(name + op.mac.ljust(8, b"\0"), "", op.label)
    return [(SPOOFCHECK_SETS[ALLOWED], allowed), (SPOOFCHECK_SETS[GUARDED], Element(name, "", op.label))]


def apply(host: Host, op: SpoofGuard, journal: Journal) -> None:
    nft_elements.ensure(host, ruleset(), lambda: _lost(host, op), journal)
    for set_ref, element in _elements(op):
        nft_elements.add_owned(host, set_ref, element, journal)


def _lost(host: Host, op: SpoofGuard) -> list[tuple[SetRef, Element]]:
    """Returns the missing elements of all other attachments, read from their host interfaces' aliases."""
    guards = [
        SpoofGuard(name, alias.allowed_mac, alias.label)
        for name, alias in nft_elements.attached(host)
        if alias.allowed_mac and name != op.host_interface
    ]
    return [element for guard in guards for element in _elements(guard) if host.nft.find(*element) is None]


def release(host: Host, op: SpoofGuard) -> None:
    """Removes the elements, by the port alone if the MAC address differs from DEL's: then all elements are read."""
    elements = _elements(op)
    if host.nft.find(*elements[0]) == elements[0][1]:
        for set_ref, element in elements:
            host.nft.remove(set_ref, element)
        return
    name = elements[1][1].key
    for set_ref, _ in elements:
        for element in host.nft.elements(set_ref):
            if element.key.startswith(name):
                host.nft.remove(set_ref, element)


def differs(host: Host, op: SpoofGuard) -> str:
    if any(host.nft.find(set_ref, element) != element for set_ref, element in _elements(op)):
        return f"the guard against spoofing on {op.host_interface} is gone from table {BRIDGE}"
    if not nft_elements.is_loaded(host, ruleset()):
        return f"table {BRIDGE} has lost its rules"
    return ""


EFFECTS = {
    "SpoofGuard": Effect(apply, release, differs),
}
