"""The Kubernetes store of what NetworkPolicy is about: watches of policies, namespaces, pods and nodes.

Each kind has a thread of its own, so that one that fails stops no other. Pods of other nodes, by far the most, and
nodes are watched only while they are wanted. Of each object a small record is kept; the JSON is dropped in the watch's
thread.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from cni.agent.logs import error_text
from cni.agent.policy.clusterpolicy import ClusterPolicy, parse_cluster_policy
from cni.agent.policy.events import (
    CLUSTER_POLICIES,
    LOCAL_PODS,
    NAMESPACES,
    NODES,
    POLICIES,
    REMOTE_PODS,
    ObjectsForgotten,
    PolicyEvent,
    PolicyStoreFailed,
    PolicyStoreRecovered,
)
from cni.agent.policy.jsonobject import Invalid
from cni.agent.policy.nodes import parse_node
from cni.agent.policy.objects import NetworkPolicy, parse_namespace, parse_pod, parse_policy
from cni.agent.stores.kube.client import Api, log
from cni.agent.stores.kube.config import access_of
from cni.agent.stores.kube.errors import ApiError
from cni.agent.stores.kube.optional import OptionalWatcher
from cni.agent.stores.kube.resource import NODES as NODE_RESOURCE
from cni.agent.stores.kube.resource import Resource
from cni.agent.stores.kube.watch import ResourceWatcher, WatchHandler
from cni.agent.stores.policy.known import KnownObjects, Listing
from cni.agent.stores.policy.pods import Pods
from cni.agent.stores.worker import EventSource
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.policy.events import Key, PolicyObject
    from cni.agent.stores.kube.options import KubeOptions
    from cni.agent.stores.kube.resource import Json

    Parser = Callable[[Json], PolicyObject]
    Guard = Callable[[Callable[[], None]], None]

PAGE = 500  # 1.5 MB of pods
METADATA = (
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
)
NAMESPACE_METADATA = Resource("namespaces", "/api/v1/namespaces", PAGE, types=METADATA)
NETWORK_POLICIES = Resource("networkpolicies", "/apis/networking.k8s.io/v1/networkpolicies", PAGE)
CLUSTER_NETWORK_POLICIES = tuple(
    Resource("clusternetworkpolicies", f"/apis/policy.networking.k8s.io/{version}/clusternetworkpolicies", PAGE)
    for version in ("v1alpha2", "v1beta1")  # are the same
)
PODS = Resource("pods", "/api/v1/pods", PAGE)
UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"  # a pod that finishes leaves as one that is deleted


class Session(Record):
    """A watch of what is watched only while it is wanted: from then until `over`."""

    watcher: ResourceWatcher
    over: Event


class ParsedList:
    """A list of objects, each of which is handed to `add` as its record; `end` is called after the last."""

    def __init__(self, parse: Callable[[Key, Json], PolicyObject], listing: Listing, guard: Guard) -> None:
        self._parse, self._listing, self._guard = parse, listing, guard

    def add(self, key: Key, item: Json) -> None:
        """Raises ApiError."""
        new = self._parse(key, item)
        self._guard(lambda: self._listing.add(key, new))

    def end(self) -> None:
        """Raises ApiError."""
        self._guard(self._listing.end)


class KubePolicyStore(EventSource[PolicyEvent]):
    """A store of the objects of a cluster."""

    def __init__(self, options: KubeOptions) -> None:
        super().__init__(log, PolicyStoreFailed, PolicyStoreRecovered())
        self._options = options
        self._node = options.node_name  # empty until the API was asked for the pod's node
        self._api = Api(partial(access_of, options))
        self._pods = Pods(self._emit, self._relist)  # with the lock, as is what is known of the other kinds
        self._nodes = KnownObjects(NODES, self._emit)
        self._sessions: dict[str, Session] = {}  # by kind
        namespaces, policies, clustered = [
            KnownObjects(kind, self._emit) for kind in (NAMESPACES, POLICIES, CLUSTER_POLICIES)
        ]
        self._watchers = {
            NAMESPACES: self._watcher(namespaces, lambda: NAMESPACE_METADATA, parse_namespace, self._stop),
            POLICIES: self._watcher(policies, lambda: NETWORK_POLICIES, parse_policy, self._stop),
            LOCAL_PODS: self._watcher(self._pods.local, self._local_pods, parse_pod, self._stop),
            CLUSTER_POLICIES: self._optional_watcher(clustered),
        }
        names = ("namespaces", "policies", "local-pods", "cluster-policies")
        for name, watcher in zip(names, self._watchers.values(), strict=True):
            self._add_thread(f"kube-{name}", watcher.run)
        for name, kind in (("remote-pods", REMOTE_PODS), ("nodes", NODES)):
            self._add_thread(f"kube-{name}", partial(self._run_sessions, kind))

    def note_attached(self, key: Key, attached: bool) -> None:
        """Does nothing: the API server tells of the pod."""

    def watch_remote_pods(self, wanted: bool) -> None:
        """Begins or ends the watch of other nodes' pods. What was known of them is forgotten with it."""
        prepared = partial(self._watcher, self._pods.remote, self._remote_pods, parse_pod)
        self._want(REMOTE_PODS, prepared if wanted else None, self._pods.forget_remote)

    def watch_nodes(self, wanted: bool) -> None:
        """Begins or ends the watch of nodes, likewise."""
        prepared = partial(self._watcher, self._nodes, lambda: NODE_RESOURCE, parse_node)
        self._want(NODES, prepared if wanted else None, self._forget_nodes)

    def heard(self) -> dict[tuple[str, ...], float]:
        with self._wake:
            watchers = self._watchers | {kind: session.watcher for kind, session in self._sessions.items()}
        return {(kind,): watcher.heard_at for kind, watcher in watchers.items() if watcher.heard_at}

    def _want(self, kind: str, watcher: Callable[[Event], ResourceWatcher] | None, forget: Callable[[], None]) -> None:
        """Begins the watch of a kind by what is returned for an event that ends it; None: ends it."""
        with self._wake:
            session = self._sessions.get(kind)
            if (watcher is None) == (session is None) or self._stop.is_set():
                return
            if watcher is not None:
                over = Event()
                self._sessions[kind] = Session(watcher(over), over)
                self._wake.notify_all()
                return
            session = self._sessions.pop(kind)
            session.over.set()
            self._succeed(kind)
            forget()
        session.watcher.interrupt()

    def _forget_nodes(self) -> None:
        keys = frozenset(self._nodes.hashes)
        self._nodes = KnownObjects(NODES, self._emit)
        self._emit(ObjectsForgotten(NODES, keys))

    def _relist(self) -> None:
        """Lists the pods of other nodes again; with the lock held."""
        if REMOTE_PODS in self._sessions:
            self._sessions[REMOTE_PODS].watcher.relist()

    def _run_sessions(self, kind: str) -> None:
        while (session := self._next_session(kind)) is not None:
            session.watcher.run()

    def _next_session(self, kind: str) -> Session | None:
        """Returns the session that is wanted, once there is one; None at the end."""
        with self._wake:
            while kind not in self._sessions and not self._stop.is_set():
                self._wake.wait()
            return None if self._stop.is_set() else self._sessions[kind]

    def _interrupt(self) -> None:
        with self._wake:
            sessions = [*self._sessions.values()]
        for session in sessions:
            session.over.set()
            session.watcher.interrupt()
        for watcher in self._watchers.values():
            watcher.interrupt()

    def _local_pods(self) -> Resource:
        """Raises ApiError."""
        return PODS._replace(fields=f"spec.nodeName={self._own_name()}")

    def _remote_pods(self) -> Resource:
        """Returns the pods of all other nodes: those that are on none have no address. Raises ApiError."""
        return PODS._replace(fields=f"spec.nodeName!=,spec.nodeName!={self._own_name()},{UNFINISHED}")

    def _own_name(self) -> str:
        """Raises ApiError."""
        if not self._node:
            self._node = self._api.node_of_pod(*self._options.pod)
        return self._node

    def _watcher(
        self, known: KnownObjects, prepare: Callable[[], Resource], parse: Parser, over: Event
    ) -> ResourceWatcher:
        """Returns a watcher of a kind, which does nothing any more once it is over."""
        return ResourceWatcher(self._api, self._handler(known, prepare, parse, over), over)

    def _optional_watcher(self, known: KnownObjects) -> OptionalWatcher:
        """Returns the watcher of ClusterNetworkPolicies, which a cluster may not have."""
        (first, *_) = CLUSTER_NETWORK_POLICIES
        handler = self._handler(known, lambda: first, parse_cluster_policy, self._stop)
        return OptionalWatcher(self._api, handler, self._stop, CLUSTER_NETWORK_POLICIES)

    def _handler(
        self, known: KnownObjects, prepare: Callable[[], Resource], parse: Parser, over: Event
    ) -> WatchHandler:
        """Returns the taker of a kind, which takes nothing any more once it is over."""

        def guarded(act: Callable[[], None]) -> None:
            with self._wake:
                if over.is_set():  # perhaps in the middle of a list
                    raise ApiError(f"{known.kind}: no longer watched")
                act()

        def parsed(key: Key, item: Json) -> PolicyObject:
            new = _parsed(known.kind, key, partial(parse, item))
            faults = _faults(new)
            if faults and known.hashes.get(key) != hash(new):  # what does not matter here changes often
                for fault in faults:
                    log.warning("%s %s%s", known.kind, "/".join(filter(None, key)), fault)
            return new

        def changed(key: Key, item: Json | None) -> None:
            new = None if item is None else parsed(key, item)
            guarded(lambda: known.change(key, new))

        def failed(reason: str) -> None:
            with suppress(ApiError):
                guarded(lambda: self._fail(known.kind, reason))

        return WatchHandler(
            prepare=prepare,
            list=lambda: ParsedList(parsed, Listing(known), guarded),
            changed=changed,
            connected=lambda: guarded(lambda: self._succeed(known.kind)),
            failed=failed,
        )


def _parsed(kind: str, key: Key, parse: Callable[[], PolicyObject]) -> PolicyObject:
    """Returns an object, or why it cannot be understood: not even a defect of ours stops the others."""
    try:
        return parse()
    except Invalid as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  # whatever an object makes the parser do
        log.debug("%s %s", kind, "/".join(filter(None, key)), exc_info=error)
        return error_text(error)


def _faults(new: PolicyObject) -> list[str]:
    """Returns what of an object is not done, each text to be read behind the object's name."""
    if isinstance(new, str):
        return [f" is ignored: {new}"]
    if isinstance(new, NetworkPolicy) and new.error:
        return [f" isolates its pods and allows nothing: {new.error}"]
    if not isinstance(new, ClusterPolicy):
        return []
    closed = f": rules in doubt accept nothing, or deny everything: {new.error}" if new.error else ""
    return [*filter(None, [closed, f": {new.unserved}" if new.unserved else ""])]
