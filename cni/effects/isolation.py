"""Bridges kept apart from each other, by elements of sets that their containers share, and ports of one bridge."""

from __future__ import annotations

from errno import EEXIST

from cni.effects import nft_elements
from cni.kernel import nft, rtnl
from cni.kernel.netlink import Refused
from cni.kernel.nft import Element, Place
from cni.plan import nfttext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Machine
    from cni.effects.journal import Journal
    from cni.plan.isolation import IsolatedPort, Isolation

ISOLATING, SAME_BRIDGE, ISOLATED = [
    Place(nft.NFPROTO_INET, nfttext.TABLE, name) for name in (nfttext.ISOLATING, nfttext.SAME_BRIDGE, nfttext.ISOLATED)
]
IFNAME_BYTES = 16
LABEL = "podwire ingressPolicy"  # nobody's: GC and DEL pass it over


def _elements(op: Isolation) -> list[tuple[Place, Element]]:
    """What may pass comes first, so that in between nothing is dropped that will pass."""
    name = op.bridge.encode().ljust(IFNAME_BYTES, b"\0")
    bridge, pair = Element(name, "", LABEL), Element(name + name, "", LABEL)
    return [(SAME_BRIDGE, pair), (ISOLATING, bridge), *([(ISOLATED, pair)] if op.within else [])]


def apply(machine: Machine, op: Isolation, journal: Journal) -> None:
    """Where somebody flushed the sets, each bridge is in them again with its next container."""
    nft_elements.ensure(machine, nfttext.isolation(), list, journal)
    for place, element in _elements(op):
        if machine.nft.find(place, element) is None:
            _add(machine, place, element, journal)


def _add(machine: Machine, place: Place, element: Element, journal: Journal) -> None:
    def step() -> None:
        refusal = machine.nft.change(nft.add_element(place, element))
        if refusal is not None:
            raise refusal

    try:
        journal.take(step, lambda: machine.nft.remove(place, element), shared=True)
    except Refused as refused:
        if refused.errno != EEXIST:  # another container of the bridge was faster
            raise


def differs(machine: Machine, op: Isolation) -> str:
    if any(machine.nft.find(place, element) is None for place, element in _elements(op)):
        return f"the isolation of {op.bridge} is gone from table {nfttext.INET}"
    return "" if nft_elements.is_whole(machine, nfttext.isolation()) else f"table {nfttext.INET} has lost its rules"


def apply_port(machine: Machine, op: IsolatedPort, journal: Journal) -> None:
    link = machine.route.need(op.port)
    if not link.isolated:
        journal.add(lambda: machine.route.request(*rtnl.set_bridge_port(op.port, link.hairpin, isolated=False)))
        machine.route.request(*rtnl.set_bridge_port(op.port, link.hairpin, isolated=True))


def port_differs(machine: Machine, op: IsolatedPort) -> str:
    link = machine.route.find(op.port)
    return "" if link is not None and link.isolated else f"{op.port} is no isolated port of its bridge"
