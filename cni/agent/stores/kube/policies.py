"""The Kubernetes store of what NetworkPolicy is about: watches of policies, namespaces and pods.

Each kind has a thread of its own, so that one that fails stops no other. Pods of other nodes, by far the most, are
watched only while they are wanted. Of each object a small record is kept; the JSON is dropped in the watch's thread.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from cni.agent.logs import error_text
from cni.agent.policy.events import (
    NAMESPACES,
    POLICIES,
    REMOTE_PODS,
    PolicyEvent,
    PolicyStoreFailed,
    PolicyStoreRecovered,
)
from cni.agent.policy.jsonobject import Invalid
from cni.agent.policy.objects import NetworkPolicy, parse_namespace, parse_pod, parse_policy
from cni.agent.stores.known import KnownObjects, Listing
from cni.agent.stores.kube.client import Api, log
from cni.agent.stores.kube.config import access_of
from cni.agent.stores.kube.errors import ApiError
from cni.agent.stores.kube.pods import Pods
from cni.agent.stores.kube.resource import Resource
from cni.agent.stores.kube.watch import ResourceWatcher, WatchHandler
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
PODS = Resource("pods", "/api/v1/pods", PAGE)
UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"  # a pod that finishes leaves as one that is deleted


class Session(Record):
    """The watch of pods of other nodes, from when they are wanted until `over`."""

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
        self._session: Session | None = None
        namespaces, policies = KnownObjects(NAMESPACES, self._emit), KnownObjects(POLICIES, self._emit)
        self._watchers = [
            self._watcher(namespaces, lambda: NAMESPACE_METADATA, parse_namespace, self._stop),
            self._watcher(policies, lambda: NETWORK_POLICIES, parse_policy, self._stop),
            self._watcher(self._pods.local, self._local_pods, parse_pod, self._stop),
        ]
        for name, watcher in zip(("namespaces", "policies", "local-pods"), self._watchers, strict=True):
            self._add_thread(f"kube-{name}", watcher.run)
        self._add_thread("kube-remote-pods", self._run_sessions)

    def note_attached(self, key: Key, attached: bool) -> None:
        """Does nothing: the API server tells of the pod."""

    def watch_remote_pods(self, wanted: bool) -> None:
        """Begins or ends the watch of other nodes' pods. What was known of them is forgotten with it."""
        with self._wake:
            session = self._session
            if wanted == (session is not None) or self._stop.is_set():
                return
            if session is None:
                over = Event()
                self._session = Session(self._watcher(self._pods.remote, self._remote_pods, parse_pod, over), over)
                self._wake.notify_all()
                return
            self._session = None
            session.over.set()
            self._succeed(REMOTE_PODS)
            self._pods.forget_remote()
        session.watcher.interrupt()

    def _relist(self) -> None:
        """Lists the pods of other nodes again; with the lock held."""
        if self._session is not None:
            self._session.watcher.relist()

    def _run_sessions(self) -> None:
        while (session := self._next_session()) is not None:
            session.watcher.run()

    def _next_session(self) -> Session | None:
        """Returns the session that is wanted, once there is one; None at the end."""
        with self._wake:
            while self._session is None and not self._stop.is_set():
                self._wake.wait()
            return None if self._stop.is_set() else self._session

    def _interrupt(self) -> None:
        with self._wake:
            session = self._session
        if session is not None:
            session.over.set()
            session.watcher.interrupt()
        for watcher in self._watchers:
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

        def guarded(act: Callable[[], None]) -> None:
            with self._wake:
                if over.is_set():  # perhaps in the middle of a list
                    raise ApiError(f"{known.kind}: no longer watched")
                act()

        def parsed(key: Key, item: Json) -> PolicyObject:
            return _parsed(known.kind, key, partial(parse, item))

        def changed(key: Key, item: Json | None) -> None:
            new = None if item is None else parsed(key, item)
            guarded(lambda: known.change(key, new))

        def failed(reason: str) -> None:
            with suppress(ApiError):
                guarded(lambda: self._fail(known.kind, reason))

        handler = WatchHandler(
            prepare=prepare,
            list=lambda: ParsedList(parsed, Listing(known), guarded),
            changed=changed,
            connected=lambda: guarded(lambda: self._succeed(known.kind)),
            failed=failed,
        )
        return ResourceWatcher(self._api, handler, over)


def _parsed(kind: str, key: Key, parse: Callable[[], PolicyObject]) -> PolicyObject:
    """Returns an object, or why it cannot be understood, and logs that: not even a defect of ours stops the others."""
    title = f"{kind} {'/'.join(filter(None, key))}"
    try:
        new = parse()
    except Invalid as error:
        new = str(error)
    except Exception as error:  # noqa: BLE001  # whatever an object makes the parser do
        log.debug("%s", title, exc_info=error)
        new = error_text(error)
    if isinstance(new, str):
        log.warning("%s is ignored: %s", title, new)
    elif isinstance(new, NetworkPolicy) and new.error:
        log.warning("%s isolates its pods and allows nothing: %s", title, new.error)
    return new
