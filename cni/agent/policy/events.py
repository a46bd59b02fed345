"""The interface between the agent and a store of the objects that NetworkPolicy is about.

A store works in threads of its own and retries forever. It emits differences: every object that comes, changes or goes
once, and nothing where an object changes in what does not matter here. Events of one kind arrive in order, those of
different kinds in any: a pod may come before its namespace, and the holder of an address before the one that had it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.agent.policy.clusterpolicy import ClusterPolicy
    from cni.agent.policy.nodes import Node
    from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod

    Key = tuple[str, str]  # namespace, empty for what is in none, and name
    PolicyObject = (
        Namespace | Pod | NetworkPolicy | ClusterPolicy | Node | str
    )  # a text is the reason why an object cannot be understood

NAMESPACES, POLICIES, CLUSTER_POLICIES = "Namespace", "NetworkPolicy", "ClusterNetworkPolicy"
LOCAL_PODS, REMOTE_PODS = "Pod of this node", "Pod of another node"  # no key is known as both at a time
NODES = "Node"
KINDS = (NAMESPACES, POLICIES, CLUSTER_POLICIES, LOCAL_PODS, REMOTE_PODS, NODES)


class ObjectsChanged(Record):
    """Objects in the place of those before, by key; None: it is gone. A list of many comes in several of these."""

    kind: str
    changes: Mapping[Key, PolicyObject | None]


class ObjectsListed(Record):
    """All objects of a kind are known from now on. What was missed later comes as changes alone."""

    kind: str


class ObjectsForgotten(Record):
    """Nothing is known of a kind any more, until it is listed again; `keys` are those that were known."""

    kind: str
    keys: frozenset[Key]


class PolicyStoreFailed(Record):
    """An error of the store, which stands until another one or `PolicyStoreRecovered` takes its place."""

    reason: str


class PolicyStoreRecovered(Record):
    """The end of all errors of the store."""


PolicyEvent = ObjectsChanged | ObjectsListed | ObjectsForgotten | PolicyStoreFailed | PolicyStoreRecovered


class PolicyStore(Protocol):
    """Namespaces, pods and policies, wherever they are kept."""

    def start(self, emit: Callable[[PolicyEvent], None]) -> None:
        """Starts to emit."""

    def note_attached(self, key: Key, attached: bool) -> None:
        """Is called, from any thread, when the pod has got an address on this node, or has lost its last one. A store
        that knows all pods without it does nothing.
        """

    def watch_remote_pods(self, wanted: bool) -> None:
        """Is called, from any thread, when pods of other nodes begin to matter or no longer do; at first they do not.
        A store may emit them all the time.
        """

    def watch_nodes(self, wanted: bool) -> None:
        """Is called as `watch_remote_pods` is, for nodes."""

    def heard(self) -> dict[tuple[str, ...], float]:
        """Returns when each watch last brought something, in seconds since the epoch, by the kind of its objects; from
        any thread. Empty for a store without watches.
        """

    def close(self) -> None:
        """Ends the threads."""
