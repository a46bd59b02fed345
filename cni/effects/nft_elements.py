"""podwire's nftables: elements held for a container, and rules that are loaded when they are missing."""

from __future__ import annotations

from errno import EEXIST

from cni.effects.nft_socket import LABELLED_SETS
from cni.kernel import nft
from cni.plan.alias import parse_alias
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import Element, SetRef
    from cni.plan.alias import Alias
    from cni.plan.nftables import RulesetFragment

    Owned = tuple[SetRef, Element]


def add_owned(host: Host, set_ref: SetRef, element: Element, journal: Journal) -> None:
    """Adds an element. A key that is taken is its last holder's left-over: the address is ours now."""
    journal.add(lambda: host.nft.remove(set_ref, element))
    added = nft.add_element(set_ref, element)
    refusal = host.nft.change(added)
    if refusal is not None and refusal.errno == EEXIST:
        refusal = host.nft.change(nft.delete_element(set_ref, element), added)
    if refusal is not None:
        raise refusal


def remove_labelled(host: Host, matches: Callable[[str], bool]) -> None:
    """Removes every element with a label that matches, except ports; for DEL without addresses, and GC.

    The cost grows with the number of all elements.
    """
    for set_ref in LABELLED_SETS:
        for element in host.nft.elements(set_ref):
            if matches(element.label):
                host.nft.remove(set_ref, element)


def ensure(host: Host, part: RulesetFragment, missing: Callable[[], Iterable[Owned]], journal: Journal) -> None:
    """Loads the part where one of its chains has no rules, with the elements that were lost.

    Alone; whoever had to wait looks again, since another may have loaded it.
    """
    if is_loaded(host, part):
        return
    host.lock.lock_exclusive()
    host.nft.forget_chains()
    if not is_loaded(host, part):
        from cni.effects import nft_load

        nft_load.load(host, part, missing(), journal)
        host.nft.forget_chains()
    host.lock.lock_shared()


def is_loaded(host: Host, part: RulesetFragment) -> bool:
    return host.nft.chains(part.table).issuperset(part.chains)


def attached(host: Host) -> list[tuple[str, Alias]]:
    """Returns name and alias of every host interface of an attachment."""
    aliases = [(link.name, parse_alias(link.alias)) for link in host.rtnl.links()]
    return [(name, alias) for name, alias in aliases if label_keys(alias.label)]
