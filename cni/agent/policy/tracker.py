"""Tracker of the desired table: what an event changes in the index becomes the changes of one transaction.

Sets, chains of policies and classes live as long as they are used; a policy without pods on this node costs nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cni.agent.policy.basetable import BYWAYS, PENDING, byways, empty_table, own_name
from cni.agent.policy.classes import ClassChain, PolicyChain, TierChain, class_of, compile_tier
from cni.agent.policy.clusterpolicy import ClusterPolicy, ties_in
from cni.agent.policy.compiler import BlockSet, NodeSet, PodSet, PortSet, compile_policy, suffix
from cni.agent.policy.desired import AddSet, Delta
from cni.agent.policy.index import UNKNOWN
from cni.agent.policy.objects import DIRECTIONS, NetworkPolicy
from cni.agent.policy.verdicts import Verdicts
from cni.plan.policy import IN, OUT
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.policy.basetable import TableOptions
    from cni.agent.policy.clusterpolicy import Tie
    from cni.agent.policy.compiler import CompiledChain, SetSource
    from cni.agent.policy.desired import Change
    from cni.agent.policy.groups import Group
    from cni.agent.policy.index import Changes, Index
    from cni.agent.policy.portnames import Endpoint
    from cni.plan.nftrule import Rule

    Part = PolicyChain | TierChain
    Classes = tuple[str | None, str | None]  # chains for ingress and egress

BYTES = {4: 4, 6: 16}  # of an address


class Suspects(Record):
    """Parts of classes and sets that have lost a user in this update, and may have lost their last."""

    parts: list[Part]
    sets: list[SetSource]


class Touched(Record):
    """Addresses whose connections policies may judge otherwise: those which they may deny now, and those for which they
    can only allow more.
    """

    narrowed: set[bytes]
    widened: set[bytes]


class Tracker:
    """The desired `table` of a node. `update` brings it up to date with the index."""

    def __init__(self, index: Index, options: TableOptions) -> None:
        self.table = empty_table(options)
        self._index = index
        self._options = options
        self.verdicts = Verdicts(self.table.verdicts, options.families)
        self._classes: dict[str, ClassChain] = {}  # by name
        self._part_users: Counter[Part] = Counter()  # classes
        self._sets: dict[Part, tuple[SetSource, ...]] = {}
        self._set_users: Counter[SetSource] = Counter()  # chains
        self._ties: dict[Part, list[Tie]] = {}  # of tiers
        self._delta = Delta()
        self._suspects = Suspects([], [])
        self._touched = Touched(set(), set())

    def take_touched(self) -> Touched:
        """Returns what all updates since the call before have touched."""
        touched, self._touched = self._touched, Touched(set(), set())
        return touched

    def update(self) -> list[Change]:
        """Returns the changes that the events since the call before lead to."""
        self._delta = Delta()
        changes = self._index.take()
        met = self.verdicts.take_met()
        changes.addresses.update(met)
        self._touch(changes)
        changes.addresses.update(self.verdicts.take_settled())
        self._update_elements(changes)
        classes: dict[Group | None, Classes] = {None: (None, None)}
        for address in [address for address in changes.addresses if _family(address) in self._options.families]:
            group = self._index.local_group(address)
            if group is None:
                self.verdicts.new.discard(address)
            elif group not in classes:
                classes[group] = self._classes_of(group)
            self._update_address(address, classes[group])
        self.verdicts.close(met, self._delta)
        self._remove_classes()
        for part in self._parts_with(changes.policies):
            if self._part_users[part]:
                self._compile(part)
        self._remove_parts()
        self._remove_sets()
        isolates = bool(self._classes) or self.verdicts.are_any_unjudged
        self._put_chain(BYWAYS, byways(self._options) if isolates else ())
        self._suspects = Suspects([], [])
        return list(self._delta.ordered())

    def sets_of(self, part: Part) -> tuple[SetSource, ...]:
        """Returns the sets that a chain looks up; none if no pod of this node is in need of it."""
        return self._sets.get(part, ())

    @property
    def ties(self) -> set[Tie]:
        """The ties among ClusterNetworkPolicies that select a pod of this node."""
        return {tie for ties in self._ties.values() for tie in ties}

    @property
    def asks_for_pods(self) -> bool:
        """True if a rule asks for pods, by their labels or their ports' names."""
        return any(isinstance(source, PodSet | PortSet) for source in self._set_users)

    @property
    def asks_for_nodes(self) -> bool:
        return any(isinstance(source, NodeSet) for source in self._set_users)

    def _touch(self, changes: Changes) -> None:
        narrowed, widened = self._touched
        narrowed.update(changes.addresses, *map(self._index.subjects, changes.policies))
        joined = narrowed if any(self._index.cluster_policies()) else widened  # only those have rules that deny
        for members in (*changes.members.values(), *changes.nodes.values()):
            for address, joins in members.items():
                (joined if joins else narrowed).add(address)
        for ends in changes.named.values():
            for (address, _), joins in ends.items():
                (joined if joins else narrowed).add(address)

    # Elements of sets in use

    def _update_elements(self, changes: Changes) -> None:
        for family in self._options.families:
            size = BYTES[family]
            for peer, members in changes.members.items():
                keys = {key: joins for key, joins in members.items() if len(key) == size}
                self._change(PodSet(peer, family).name, keys)
            for (protocol, name), ends in changes.named.items():
                keys = {_key(end): joins for end, joins in ends.items() if len(end[0]) == size}
                self._change(PortSet(protocol, name, family).name, keys)
            for nodes, members in changes.nodes.items():
                keys = {key: joins for key, joins in members.items() if len(key) == size}
                self._change(NodeSet(nodes, family).name, keys)

    def _change(self, name: str, keys: dict[bytes, bool]) -> None:
        elements = self.table.elements.get(name)
        if elements is None:  # no rule looks up the addresses of this family
            return
        for key, joins in keys.items():
            if joins != (key in elements):
                (elements.add if joins else elements.discard)(key)
                self._delta.elements.setdefault(name, {})[key] = joins

    # Addresses and their classes

    def _update_address(self, address: bytes, classes: Classes) -> None:
        family = _family(address)
        for direction, chain in zip(DIRECTIONS, classes, strict=True):
            self.verdicts.lead(address, suffix(direction), family, chain, self._delta)
        isolated = any(
            chain in PENDING.values() or self._classes[chain].policies for chain in classes if chain is not None
        )
        if isolated or address not in self.verdicts.new:
            self._change(own_name(family), {address + address: isolated})

    def _classes_of(self, group: Group) -> Classes:
        """Returns the chains of a group's pods for both directions; None for one in which no policy concerns them."""
        if group is UNKNOWN:
            return PENDING[IN], PENDING[OUT]
        ingress, egress = [self._class_of(class_of(group, direction)) for direction in DIRECTIONS]
        return ingress, egress

    def _class_of(self, chain: ClassChain) -> str | None:
        if not chain.parts:
            return None
        if chain.name not in self._classes:
            self._classes[chain.name] = chain
            for part in chain.parts:
                self._part_users[part] += 1
                if part not in self._sets:
                    self._compile(part)
            self._put_chain(chain.name, chain.rules)
        return chain.name

    def _remove_classes(self) -> None:
        for chain in dict.fromkeys(self.verdicts.lost):
            if self.verdicts.users[chain] or chain not in self._classes:
                continue
            del self.verdicts.users[chain]
            self._remove_chain(chain)
            for part in self._classes.pop(chain).parts:
                self._part_users[part] -= 1
                self._suspects.parts.append(part)
        self.verdicts.lost.clear()

    # Chains of policies and their sets

    def _parts_with(self, titles: set[str]) -> list[Part]:
        """Returns the parts of classes that some policies are in."""
        clustered = {title for title in titles if "/" not in title}
        tiers = [part for part in self._sets if not clustered.isdisjoint(part.titles)] if clustered else []
        return [*tiers, *[PolicyChain(title, direction) for title in titles - clustered for direction in DIRECTIONS]]

    def _compile(self, part: Part) -> None:
        """Writes the chain of a part, as the index has its policies now."""
        compiled = self._compiled(part)
        old = self._sets.get(part, ())
        self._sets[part] = compiled.sets
        for source in [source for source in compiled.sets if source not in old]:
            self._set_users[source] += 1
            if self._set_users[source] == 1 and source.name not in self.table.sets:
                self._add_set(source)
        self._release_sets([source for source in old if source not in compiled.sets])
        self._put_chain(part.name, compiled.rules)

    def _compiled(self, part: Part) -> CompiledChain:
        policies = [policy for title in part.titles if (policy := self._index.policy(title)) is not None]
        if isinstance(part, TierChain):
            tier = [policy for policy in policies if isinstance(policy, ClusterPolicy)]
            self._ties[part] = ties_in(tier)
            return compile_tier(tier, part.direction, self._options.families)
        (policy,) = [policy for policy in policies if isinstance(policy, NetworkPolicy)]
        return compile_policy(policy, part.direction, self._options.families)

    def _remove_parts(self) -> None:
        for part in dict.fromkeys(self._suspects.parts):
            if not self._part_users[part]:
                del self._part_users[part]
                self._remove_chain(part.name)
                self._release_sets(self._sets.pop(part))
                self._ties.pop(part, None)

    def _add_set(self, source: SetSource) -> None:
        name = source.name
        self.table.sets[name] = source.definition
        spans = source.spans if isinstance(source, BlockSet) else ()
        self._delta.sets[name] = AddSet(source.definition, spans)
        if isinstance(source, BlockSet):
            self.table.spans[name] = spans
            return
        if isinstance(source, PodSet):
            keys = [key for key in self._index.use_set(source.peer) if len(key) == BYTES[source.family]]
        elif isinstance(source, NodeSet):
            keys = [key for key in self._index.use_nodes(source.peer) if len(key) == BYTES[source.family]]
        else:
            ends = self._index.use_named((source.protocol, source.port))
            keys = [_key(end) for end in ends if len(end[0]) == BYTES[source.family]]
        self.table.elements[name] = set()
        self._change(name, dict.fromkeys(keys, True))

    def _release_sets(self, sources: Iterable[SetSource]) -> None:
        for source in sources:
            self._set_users[source] -= 1
            self._suspects.sets.append(source)

    def _remove_sets(self) -> None:
        for source in dict.fromkeys(self._suspects.sets):
            if self._set_users[source]:
                continue
            del self._set_users[source], self.table.sets[source.name]
            self._delta.old_sets.append(source.name)
            if isinstance(source, BlockSet):
                del self.table.spans[source.name]
                continue
            del self.table.elements[source.name]
            self._delta.elements.pop(source.name, None)
            if isinstance(source, PodSet):
                self._index.release_set(source.peer)
            elif isinstance(source, NodeSet):
                self._index.release_nodes(source.peer)
            else:
                self._index.release_named((source.protocol, source.port))

    # Chains

    def _put_chain(self, chain: str, rules: tuple[Rule, ...]) -> None:
        if chain not in self.table.chains:
            self._delta.new_chains.append(chain)
        elif self.table.chains[chain] == rules:
            return
        self.table.chains[chain] = self._delta.chains[chain] = rules

    def _remove_chain(self, chain: str) -> None:
        del self.table.chains[chain]
        self._delta.old_chains.append(chain)


def _family(address: bytes) -> int:
    return 4 if len(address) == BYTES[4] else 6


def _key(end: Endpoint) -> bytes:
    """Returns the key of an address and a port, each part of a concatenation filling four bytes."""
    address, port = end
    return address + port.to_bytes(2, "big") + bytes(2)
