"""Index of pods, namespaces and policies. A change costs what it concerns, however many there are of each.

An address belongs to the pod that claimed it last: the pod before it may be reported as gone later. `take` returns what
has changed since it was called last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.clusterpolicy import ClusterPolicy
from cni.agent.policy.groups import Group, Groups
from cni.agent.policy.holders import Entry, Holders
from cni.agent.policy.nodes import Nodes
from cni.agent.policy.objects import NetworkPolicy, Pod
from cni.agent.policy.portnames import PortNames
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.agent.policy.groups import Policy, Query
    from cni.agent.policy.jsonobject import Labels
    from cni.agent.policy.nodes import Node
    from cni.agent.policy.objects import NamedPort, Namespace, NodePeer, PodPeer
    from cni.agent.policy.portnames import Endpoint, PortName

UNKNOWN = Group("", ())  # of attached pods that the API has not told of: no selector selects it


class Changes(Record):
    """The titles of policies that have changed, addresses whose policies may be others now, and the elements of sets
    in use that have changed: True if they are in it now, False if not.
    """

    policies: set[str]
    addresses: set[bytes]
    members: dict[PodPeer, dict[bytes, bool]]
    named: dict[PortName, dict[Endpoint, bool]]
    nodes: dict[NodePeer, dict[bytes, bool]]


class Index:
    """The objects of the cluster as the node `node` sees them; a State of the evaluator."""

    def __init__(self, node: str, node_addresses: Iterable[bytes] = (), *, opens_node: bool = False) -> None:
        """`opens_node`: egress of its pods to the node itself is not judged."""
        self.node = node
        self.node_addresses = frozenset(node_addresses)
        self._opens_node = opens_node
        self._groups = Groups()
        self._holders = Holders()
        self._pods: dict[str, dict[str, Entry]] = {}  # by namespace and name: those that selectors can select
        self._attached: dict[tuple[str, str], tuple[bytes, ...]] = {}
        self._nodes = Nodes()
        self._policies: dict[str, dict[str, Policy]] = {}  # by namespace and title
        self._shared: dict[tuple[NamedPort, ...], tuple[NamedPort, ...]] = {}
        self._port_names = PortNames()
        self._changes = Changes(set(), set(), {}, {}, {})

    # Events

    def put_namespace(self, namespace: Namespace) -> None:
        self._relabel(namespace.name, namespace.labels)

    def remove_namespace(self, name: str) -> None:
        self._relabel(name, None)

    def put_pod(self, pod: Pod) -> None:
        """Takes in a pod, new or changed. One that selectors cannot select is forgotten."""
        title = pod.namespace, pod.name
        attached = self._attached.get(title, ())
        group = self._groups.group(pod.namespace, pod.labels) if pod.is_subject else None
        addresses = tuple(dict.fromkeys(pod.addresses + attached))
        is_local = bool(attached) or pod.node == self.node
        ports = self._share(pod.ports)
        self._replace(*title, Entry(pod.name, group, addresses, ports, is_local, attached) if group else None)

    def remove_pod(self, namespace: str, name: str) -> None:
        """Takes in that the API has the pod no longer; where it is attached, it is unknown again."""
        attached = self._attached.get((namespace, name), ())
        self._replace(namespace, name, Entry(name, UNKNOWN, attached, (), True, attached) if attached else None)

    def attach(self, namespace: str, name: str, addresses: tuple[bytes, ...]) -> None:
        """Takes in which addresses the pod has on this node. They are pending until the API has told of the pod."""
        self._attached[namespace, name] = addresses
        known = self._pods.get(namespace, {}).get(name)
        if known is None:
            known = Entry(name, UNKNOWN, (), (), True, ())
        kept = tuple([address for address in known.addresses if address not in known.attached])
        entry = known._replace(addresses=tuple(dict.fromkeys(kept + addresses)), is_local=True, attached=addresses)
        self._replace(namespace, name, entry)

    def detach(self, namespace: str, name: str) -> None:
        """Takes in that the pod has no address on this node any more, whatever the API says for a while."""
        attached = self._attached.pop((namespace, name), ())
        known = self._pods.get(namespace, {}).get(name)
        if known is None:
            return
        kept = tuple([address for address in known.addresses if address not in attached])
        self._replace(
            namespace, name, known._replace(addresses=kept, attached=()) if known.group is not UNKNOWN else None
        )

    def put_node(self, node: Node) -> None:
        self._nodes.put(node)

    def remove_node(self, name: str) -> None:
        self._nodes.remove(name)

    def put_policy(self, policy: Policy) -> None:
        policies = self._policies.setdefault(policy.namespace, {})
        old = policies.get(policy.title)
        if old == policy:
            return
        policies[policy.title] = policy
        self._changes.policies.add(policy.title)
        if old is not None and old.selection == policy.selection:
            self._groups.query(policy.subject).policies[policy.title] = policy
            return
        self._forget_policy(old)
        query = self._groups.query(policy.subject)
        query.policies[policy.title] = policy
        self._note_subjects(query)

    def remove_policy(self, namespace: str, name: str) -> None:
        """Takes in that a NetworkPolicy is gone, or a ClusterNetworkPolicy, whose namespace is empty."""
        policies = self._policies.get(namespace, {})
        self._forget_policy(policies.pop(f"{namespace}/{name}" if namespace else name, None))
        if not policies:
            self._policies.pop(namespace, None)

    # Answers

    def take(self) -> Changes:
        """Returns all changes since the call before."""
        changes, self._changes = self._changes, Changes(set(), set(), {}, {}, {})
        return changes._replace(named=self._port_names.take(), nodes=self._nodes.take())

    @property
    def pod_count(self) -> int:
        return sum(map(len, self._pods.values()))

    @property
    def policy_count(self) -> int:
        return sum(map(len, self._policies.values()))

    def policy(self, title: str) -> Policy | None:
        return self._policies.get(title.rpartition("/")[0], {}).get(title)

    def local_group(self, address: bytes) -> Group | None:
        """Returns the group of a local pod with an address; UNKNOWN if the API does not tell of it."""
        entry = self._holders.get(address)
        return entry.group if entry is not None and entry.is_local else None

    def is_pending(self, address: bytes) -> bool:
        """True if a pod was attached with the address here, of which the API has not told."""
        return self.local_group(address) is UNKNOWN

    def local_addresses(self) -> Iterator[bytes]:
        """Yields the addresses of this node's pods."""
        return (address for address, entry in self._holders.items() if entry.is_local)

    def subjects(self, title: str) -> Iterator[bytes]:
        """Yields the addresses of this node's pods that a policy selects; none if there is no such policy."""
        policy = self.policy(title)
        return self._subjects(self._groups.query(policy.subject)) if policy is not None else iter(())

    def use_set(self, peer: PodPeer) -> list[bytes]:
        """Returns the addresses of the pods that are selected; from now on `take` tells what changes."""
        query = self._groups.query(peer)
        query.set_users += 1
        return [address for group in query.groups for address in self._addresses(group)]

    def release_set(self, peer: PodPeer) -> None:
        query = self._groups.query(peer)
        query.set_users -= 1
        self._groups.release(query)
        if not query.set_users:
            self._changes.members.pop(peer, None)

    def use_named(self, name: PortName) -> list[Endpoint]:
        """Returns the ports of that protocol and name, with the addresses of the pods that have them."""
        return self._port_names.use(name, self._holders)

    def release_named(self, name: PortName) -> None:
        self._port_names.release(name)

    def use_nodes(self, peer: NodePeer) -> list[bytes]:
        """Returns the addresses of the nodes that are selected; from now on `take` tells what changes."""
        return self._nodes.use(peer)

    def release_nodes(self, peer: NodePeer) -> None:
        self._nodes.release(peer)

    # State of the evaluator

    def pod_at(self, address: bytes) -> Pod | None:
        return self._pod_of(self._holders.get(address))

    def pod_named(self, namespace: str, name: str) -> Pod | None:
        """Returns a pod that selectors can select."""
        return self._pod_of(self._pods.get(namespace, {}).get(name))

    def group_named(self, namespace: str, name: str) -> Group | None:
        """Returns the group of a pod that selectors can select, or UNKNOWN."""
        entry = self._pods.get(namespace, {}).get(name)
        return entry.group if entry is not None else None

    def _pod_of(self, entry: Entry | None) -> Pod | None:
        if entry is None or entry.group is UNKNOWN:
            return None
        node = self.node if entry.is_local else ""
        group = entry.group
        return Pod(group.namespace, entry.name, group.labels, entry.addresses, entry.ports, False, False, node)

    def namespace_labels(self, name: str) -> Labels | None:
        return self._groups.namespace_labels(name)

    def policies_in(self, namespace: str) -> Iterable[NetworkPolicy]:
        return [policy for policy in self._policies.get(namespace, {}).values() if isinstance(policy, NetworkPolicy)]

    def cluster_policies(self) -> Iterable[ClusterPolicy]:
        return [policy for policy in self._policies.get("", {}).values() if isinstance(policy, ClusterPolicy)]

    def nodes_at(self, address: bytes) -> Iterable[Labels]:
        return self._nodes.labels_at(address)

    def is_node_of(self, pod: Pod, address: bytes) -> bool:
        return pod.node == self.node and address in self.node_addresses

    def is_open_node(self, pod: Pod, address: bytes) -> bool:
        return self._opens_node and self.is_node_of(pod, address)

    # Consequences

    def _replace(self, namespace: str, name: str, entry: Entry | None) -> None:
        """Puts an entry in the place of the pod's, and notes for each of its addresses what that changes."""
        pods = self._pods.setdefault(namespace, {})
        old = pods.get(name)
        if old == entry:
            self._forget_if_empty(namespace)
            return
        pods.pop(name, None)
        if entry is not None:
            pods[name] = entry
            if entry.group is not UNKNOWN:
                entry.group.pods.add(name)
        self._forget_if_empty(namespace)
        for address in dict.fromkeys((old.addresses if old else ()) + (entry.addresses if entry else ())):
            before = self._holders.get(address)
            self._holders.replace(address, old, entry)
            self._note_holder(address, before, self._holders.get(address))
        if old is not None and (entry is None or entry.group is not old.group) and old.group is not UNKNOWN:
            old.group.pods.discard(name)
            self._groups.forget_if_empty(old.group)

    def _forget_if_empty(self, namespace: str) -> None:
        if not self._pods[namespace]:
            del self._pods[namespace]

    def _note_holder(self, address: bytes, before: Entry | None, after: Entry | None) -> None:
        old, new = _queries_of(before), _queries_of(after)
        if old is not new:
            for query in old ^ new:
                self._note_member(query, address, query in new)
        self._port_names.note(address, before, after)
        if (before and before.is_local) or (after and after.is_local):
            self._changes.addresses.add(address)

    def _note_member(self, query: Query, address: bytes, joins: bool) -> None:
        if query.set_users:
            self._changes.members.setdefault(query.peer, {})[address] = joins

    def _relabel(self, name: str, labels: Labels | None) -> None:
        for query, group, joins in self._groups.put_namespace(name, labels):
            for address in self._addresses(group):
                self._note_member(query, address, joins)
            if query.policies:
                self._changes.addresses.update(self._local_addresses(group))

    def _addresses(self, group: Group) -> Iterator[bytes]:
        """Yields the addresses that the pods of a group hold."""
        pods = self._pods.get(group.namespace, {})
        for name in group.pods:
            entry = pods[name]
            for address in entry.addresses:
                if self._holders.get(address) is entry:
                    yield address

    def _forget_policy(self, policy: Policy | None) -> None:
        if policy is None:
            return
        query = self._groups.query(policy.subject)
        self._changes.policies.add(policy.title)
        self._note_subjects(query)
        del query.policies[policy.title]
        self._groups.release(query)

    def _note_subjects(self, query: Query) -> None:
        self._changes.addresses.update(self._subjects(query))

    def _subjects(self, query: Query) -> Iterator[bytes]:
        for group in query.groups:
            yield from self._local_addresses(group)

    def _local_addresses(self, group: Group) -> Iterator[bytes]:
        """Yields the addresses of a group's pods on this node."""
        pods = self._pods[group.namespace]
        for entry in [pods[name] for name in group.pods]:
            yield from entry.addresses if entry.is_local else ()

    def _share(self, ports: tuple[NamedPort, ...]) -> tuple[NamedPort, ...]:
        """Returns the same object for equal ports: pods of one image have the same."""
        return self._shared.setdefault(ports, ports)


def _queries_of(entry: Entry | None) -> set[Query]:
    return entry.group.queries if entry is not None else set()
