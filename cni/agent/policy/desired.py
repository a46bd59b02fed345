"""The table that policies lead to, as a value, and the difference of two as the changes of one transaction.

Order: what is new comes before what refers to it, and what is left over goes after that which referred to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.agent.policy.blocks import Span
    from cni.plan.nftrule import NamedSet, Rule


class AddSet(Record):
    """A new set; with `spans` all of its content."""

    definition: NamedSet
    spans: tuple[Span, ...] = ()


class AddElements(Record):
    """Keys that a set gains, as the kernel has them."""

    set_name: str
    keys: tuple[bytes, ...]


class DeleteElements(Record):
    """Keys that a set, or a map, loses."""

    set_name: str
    keys: tuple[bytes, ...]


class AddVerdicts(Record):
    """Keys that a map gains, each with the chain to go to."""

    map_name: str
    chains: tuple[tuple[bytes, str], ...]


class AddChain(Record):
    """A new chain, which is empty."""

    name: str


class SetRules(Record):
    """All rules of a chain, instead of those that it has."""

    chain: str
    rules: tuple[Rule, ...]


class DeleteChain(Record):
    """A chain that nothing refers to."""

    name: str


class DeleteSet(Record):
    """A set that no rule looks up."""

    name: str


Change = AddSet | AddElements | DeleteElements | AddVerdicts | AddChain | SetRules | DeleteChain | DeleteSet


class DesiredTable:
    """Additions of policies to the base table: sets with `spans` or `elements`, chains, and by map the chains of
    addresses. Of the base table's chains, sets and maps only those are here that policies fill.
    """

    def __init__(self, sets: Iterable[str], maps: Iterable[str], chains: Iterable[str]) -> None:
        """Makes it with these of the base table, all of them empty."""
        self.sets: dict[str, NamedSet] = {}
        self.spans: dict[str, tuple[Span, ...]] = {}
        self.elements: dict[str, set[bytes]] = {name: set() for name in sets}
        self.chains: dict[str, tuple[Rule, ...]] = dict.fromkeys(chains, ())
        self.verdicts: dict[str, dict[bytes, str]] = {name: {} for name in maps}

    @property
    def set_sizes(self) -> list[int]:
        """The numbers of elements of the policies' sets."""
        return [len(self.spans[name] if name in self.spans else self.elements[name]) for name in self.sets]


class Delta:
    """The parts of a table that change."""

    def __init__(self) -> None:
        self.sets: dict[str, AddSet] = {}  # new ones
        self.old_sets: list[str] = []
        self.elements: dict[str, dict[bytes, bool]] = {}  # True: the set gains it
        self.chains: dict[str, tuple[Rule, ...]] = {}  # new or with other rules
        self.new_chains: list[str] = []
        self.old_chains: list[str] = []
        self.verdicts: dict[str, dict[bytes, str]] = {}  # gained, or to another chain
        self.old_verdicts: dict[str, list[bytes]] = {}  # lost, or to another chain

    def ordered(self) -> Iterator[Change]:
        """Yields the changes in an order that the kernel takes."""
        yield from self.sets.values()
        yield from self._elements(AddElements, gained=True)
        yield from map(AddChain, self.new_chains)
        for chain, rules in self.chains.items():
            yield SetRules(chain, rules)
        for name, keys in self.old_verdicts.items():
            yield DeleteElements(name, tuple(keys))
        for name, chains in self.verdicts.items():
            yield AddVerdicts(name, tuple(chains.items()))
        for chain in self.old_chains:
            yield SetRules(chain, ())  # they refer to one another
        yield from map(DeleteChain, self.old_chains)
        yield from self._elements(DeleteElements, gained=False)
        yield from map(DeleteSet, self.old_sets)

    def _elements(self, kind: type[AddElements | DeleteElements], *, gained: bool) -> Iterator[Change]:
        for name, elements in self.elements.items():
            keys = tuple([key for key, joins in elements.items() if joins is gained])
            if keys:
                yield kind(name, keys)


def difference(old: DesiredTable, new: DesiredTable) -> list[Change]:
    """Returns the changes that make the new table of the old one. Both have the same base table."""
    delta = Delta()
    delta.sets = {
        name: AddSet(definition, new.spans.get(name, ()))
        for name, definition in new.sets.items()
        if name not in old.sets
    }
    delta.old_sets = [name for name in old.sets if name not in new.sets]
    for name, elements in new.elements.items():
        delta.elements[name] = {key: key in elements for key in elements ^ old.elements.get(name, set())}
    delta.chains = {name: rules for name, rules in new.chains.items() if rules != old.chains.get(name)}
    delta.new_chains = [name for name in new.chains if name not in old.chains]
    delta.old_chains = [name for name in old.chains if name not in new.chains]
    for name, verdicts in new.verdicts.items():
        before = old.verdicts[name]
        gained = {key: chain for key, chain in verdicts.items() if before.get(key) != chain}
        lost = [key for key, chain in before.items() if verdicts.get(key) != chain]
        if gained:
            delta.verdicts[name] = gained
        if lost:
            delta.old_verdicts[name] = lost
    return list(delta.ordered())
