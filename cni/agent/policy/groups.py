"""Groups of pods with the same labels, and the queries that select them: a pod with known labels asks no selector.

A query is filed under what its selector demands, so that a new group asks few; a namespace knows which selectors of
namespaces select it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cni.agent.policy.clusterpolicy import ClusterPolicy
from cni.agent.policy.objects import NetworkPolicy
from cni.agent.policy.selectors import demands_met

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.agent.policy.jsonobject import Labels
    from cni.agent.policy.objects import PodPeer
    from cni.agent.policy.selectors import Demand, Selector

    Policy = NetworkPolicy | ClusterPolicy
    Scope = str | Selector  # one namespace by its name, or all that a selector selects


class Group:
    """The pods of a namespace with the same labels, by name, and the queries that select them."""

    __slots__ = ("labels", "namespace", "pods", "queries")

    def __init__(self, namespace: str, labels: Labels) -> None:
        self.namespace = namespace
        self.labels = labels
        self.pods: set[str] = set()
        self.queries: set[Query] = set()

    @property
    def policies(self) -> list[NetworkPolicy]:
        """The NetworkPolicies that select the pods, in the order of their titles."""
        policies = [policy for policy in self._selecting() if isinstance(policy, NetworkPolicy)]
        return sorted(policies, key=lambda policy: policy.title)

    def tier(self, tier: str) -> list[ClusterPolicy]:
        """Returns the ClusterNetworkPolicies of a tier that select the pods, in the order in which they are asked."""
        policies = [policy for policy in self._selecting() if isinstance(policy, ClusterPolicy) and policy.tier == tier]
        return sorted(policies, key=lambda policy: policy.rank)

    def _selecting(self) -> Iterator[Policy]:
        for query in self.queries:
            yield from query.policies.values()


class Query:
    """A selection of pods that has users: as a set of addresses (`is_set`), or as the subject of policies."""

    __slots__ = ("groups", "peer", "policies", "set_users")

    def __init__(self, peer: PodPeer) -> None:
        self.peer = peer
        self.groups: set[Group] = set()
        self.policies: dict[str, Policy] = {}  # that select these pods, by title
        self.set_users = 0

    @property
    def is_used(self) -> bool:
        return bool(self.set_users or self.policies)


class _Space:
    """A namespace: `labels` are None until it is known, `scopes` the selectors of namespaces that select it."""

    __slots__ = ("groups", "labels", "scopes")

    def __init__(self) -> None:
        self.labels: Labels | None = None
        self.scopes: set[Scope] = set()
        self.groups: dict[Labels, Group] = {}


class Groups:
    """All groups, namespaces and queries."""

    def __init__(self) -> None:
        self._spaces: dict[str, _Space] = {}
        self._queries: dict[PodPeer, Query] = {}
        self._filed: dict[Demand, dict[Scope, set[Query]]] = {}
        self._scopes: Counter[Selector] = Counter()  # queries of each selector of namespaces

    def namespace_labels(self, name: str) -> Labels | None:
        space = self._spaces.get(name)
        return space.labels if space else None

    def put_namespace(self, name: str, labels: Labels | None) -> Iterator[tuple[Query, Group, bool]]:
        """Yields what its new labels change: a query selects a group now, or no longer. None: it is gone."""
        space = self._space(name)
        space.labels = labels
        known = dict(labels or ())
        scopes: set[Scope] = {name}
        if labels is not None:
            scopes.update([scope for scope in self._scopes if scope.matches(known)])
        changed, space.scopes = space.scopes ^ scopes, scopes
        for group in space.groups.values():
            before = group.queries
            group.queries = before - {query for query in before if query.peer.namespaces in changed - scopes}
            group.queries |= set(self._selecting(group, changed & scopes))
            for query in before ^ group.queries:
                joins = query in group.queries
                (query.groups.add if joins else query.groups.discard)(group)
                yield query, group, joins
        self._forget_if_unused(name)

    def group(self, namespace: str, labels: Labels) -> Group:
        """Returns the group of these labels, a new one if there is none."""
        space = self._space(namespace)
        group = space.groups.get(labels)
        if group is None:
            group = space.groups[labels] = Group(namespace, labels)
            group.queries = set(self._selecting(group, space.scopes))
            for query in group.queries:
                query.groups.add(group)
        return group

    def forget_if_empty(self, group: Group) -> None:
        """Removes a group that has no pods."""
        if group.pods:
            return
        for query in group.queries:
            query.groups.discard(group)
        del self._spaces[group.namespace].groups[group.labels]
        self._forget_if_unused(group.namespace)

    def query(self, peer: PodPeer) -> Query:
        """Returns the query, a new one if there is none; `release` it when it has lost a user."""
        query = self._queries.get(peer)
        if query is None:
            query = self._queries[peer] = Query(peer)
            for demand in peer.pods.demands:
                self._filed.setdefault(demand, {}).setdefault(peer.namespaces, set()).add(query)
            for space in self._selected_spaces(peer.namespaces):
                for group in space.groups.values():
                    if peer.pods.matches(dict(group.labels)):
                        query.groups.add(group)
                        group.queries.add(query)
        return query

    def release(self, query: Query) -> None:
        """Removes a query without users."""
        if query.is_used:
            return
        del self._queries[query.peer]
        scope = query.peer.namespaces
        for demand in query.peer.pods.demands:
            filed = self._filed[demand]
            filed[scope].discard(query)
            if not filed[scope]:
                del filed[scope]
            if not filed:
                del self._filed[demand]
        for group in query.groups:
            group.queries.discard(query)
        if not isinstance(scope, str):
            self._scopes[scope] -= 1
            if not self._scopes[scope]:
                del self._scopes[scope]
                for space in self._spaces.values():
                    space.scopes.discard(scope)

    def _selecting(self, group: Group, scopes: set[Scope]) -> Iterator[Query]:
        """Yields the queries of some scopes that select the group."""
        labels = dict(group.labels)
        for demand in demands_met(group.labels):
            filed = self._filed.get(demand, {})
            for scope in filed.keys() & scopes:
                yield from [query for query in filed[scope] if query.peer.pods.matches(labels)]

    def _selected_spaces(self, scope: Scope) -> list[_Space]:
        """Returns the namespaces of a scope that a new query has; each remembers that it is selected."""
        if isinstance(scope, str):
            return [self._spaces[scope]] if scope in self._spaces else []
        self._scopes[scope] += 1
        if self._scopes[scope] == 1:
            for space in self._spaces.values():
                if space.labels is not None and scope.matches(dict(space.labels)):
                    space.scopes.add(scope)
        return [space for space in self._spaces.values() if scope in space.scopes]

    def _space(self, name: str) -> _Space:
        space = self._spaces.get(name)
        if space is None:
            space = self._spaces[name] = _Space()
            space.scopes.add(name)
        return space

    def _forget_if_unused(self, name: str) -> None:
        space = self._spaces[name]
        if space.labels is None and not space.groups:
            del self._spaces[name]
