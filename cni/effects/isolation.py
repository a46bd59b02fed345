"""Isolation of bridges from each other, by set elements that their containers share, and of ports of one bridge."""

from __future__ import annotations

from errno import EEXIST

from cni.effects import Effect, nft_elements, not_released
from cni.kernel import nft, rtnl
from cni.kernel.netlink import NetlinkError
from cni.kernel.nft import Element, SetRef
from cni.plan import isolation as plan
from cni.plan.nftables import INET, TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.isolation import IsolatedPort, Isolation

ISOLATING, SAME_BRIDGE, ISOLATED = [
    SetRef(nft.NFPROTO_INET, TABLE, name) for name in (plan.ISOLATING, plan.SAME_BRIDGE, plan.ISOLATED)
]
IFNAME_BYTES = 16
LABEL = "podwire ingressPolicy"  # of no attachment: GC and DEL skip it


def _elements(op: Isolation) -> list[tuple[SetRef, Element]]:
    """Returns the elements, the accepting ones first, so that meanwhile no packet is dropped that will pass."""
    name = op.bridge.encode().ljust(IFNAME_BYTES, b"\0")
    bridge, pair = Element(name, "", LABEL), Element(name + name, "", LABEL)
    return [(SAME_BRIDGE, pair), (ISOLATING, bridge), *([(ISOLATED, pair)] if op.within else [])]


def apply(host: Host, op: Isolation, journal: Journal) -> None:
    """Adds the bridge to the sets; after a flush, each bridge is added again with its next container."""
    nft_elements.ensure(host, plan.ruleset(), list, journal)
    for set_ref, element in _elements(op):
        if host.nft.find(set_ref, element) is None:
            _add(host, set_ref, element, journal)


def _add(host: Host, set_ref: SetRef, element: Element, journal: Journal) -> None:
    def step() -> None:
        refusal = host.nft.change(nft.add_element(set_ref, element))
        if refusal is not None:
            raise refusal

    try:
        journal.run(step, lambda: host.nft.remove(set_ref, element), shared=True)
    except NetlinkError as error:
        if error.errno != EEXIST:  # another container of the bridge was faster
            raise


def differs(host: Host, op: Isolation) -> str:
    if any(host.nft.find(set_ref, element) is None for set_ref, element in _elements(op)):
        return f"the isolation of {op.bridge} is gone from table {INET}"
    return "" if nft_elements.is_loaded(host, plan.ruleset()) else f"table {INET} has lost its rules"


def apply_port(host: Host, op: IsolatedPort, journal: Journal) -> None:
    link = host.rtnl.need(op.port)
    if not link.isolated:
        journal.add(lambda: host.rtnl.request(*rtnl.set_bridge_port(op.port, link.hairpin, isolated=False)))
        host.rtnl.request(*rtnl.set_bridge_port(op.port, link.hairpin, isolated=True))


def port_differs(host: Host, op: IsolatedPort) -> str:
    link = host.rtnl.find(op.port)
    return "" if link is not None and link.isolated else f"{op.port} is not an isolated port of its bridge"


EFFECTS = {
    "Isolation": Effect(apply, not_released, differs),
    "IsolatedPort": Effect(apply_port, not_released, port_differs),
}
