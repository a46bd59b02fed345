"""What Kubernetes says of all nodes: listed once, then watched. A watch that ends is taken up where it ended.

Where the API server cannot do that (it remembers less, or was restored to an older state) all are listed again.
"""

from __future__ import annotations

import time
from random import SystemRandom
from threading import Lock
from typing import TYPE_CHECKING

from cni.agent.logs import error_text
from cni.agent.stores.kube.client import Expired, log
from cni.agent.stores.kube.config import ApiError
from cni.agent.stores.kube.nodes import is_older, own_node, peer
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from cni.agent.model.lease import Lease
    from cni.agent.stores.kube.client import Api, Watch
    from cni.agent.stores.kube.nodes import Json, Names, OwnNode
    from cni.agent.stores.kube.options import KubeOptions

WATCH_SECONDS = 300, 600  # at random between these, so that not all nodes come back at once
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
CALM = 5.0  # seconds for which a watch has to live until the trouble before it is over
PATIENCE = 2  # attempts in vain until that is told
DOWN = float("inf")
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


def told(error: Exception) -> str:
    """In words for people."""
    return str(error) if isinstance(error, ApiError) else error_text(error)


def named(node: Json) -> str:
    """Raises ApiError."""
    metadata = node.get("metadata") if isinstance(node, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not (name and isinstance(name, str)):
        raise ApiError("Kubernetes tells of a node without a name")
    return name


class WatchHandler(Record):
    """Whom the follower calls. An own node is None where it does not exist, a lease where no node of flannel's does."""

    listed: Callable[[OwnNode | None, dict[str, Lease | str]], None]
    own: Callable[[OwnNode | None], None]
    peer: Callable[[str, Lease | str | None], None]
    connected: Callable[[], None]
    failed: Callable[[str], None]


class Watcher:
    """`name`: the own node's; empty until its pod was asked."""

    def __init__(self, api: Api, options: KubeOptions, names: Names, handler: WatchHandler, stop: Event) -> None:
        self.name = options.node_name
        self._api, self._pod, self._names, self._hooks, self._stop = api, options.pod, names, handler, stop
        self._revision = ""
        self._up_since = DOWN
        self._pause = FIRST_PAUSE
        self._wait = 0.0  # that the server asked for
        self._listed = -DOWN  # when
        self._broken = False  # the last watch, or the attempt at one, has failed
        self._vain = 0
        self._lock = Lock()  # of the two below, which other threads touch
        self._stream: Watch | None = None
        self._stale = False

    def reset_connections(self) -> None:
        """From any thread: goes on over a connection of its own."""
        with self._lock:
            self._stale = True
            if self._stream is not None:
                self._stream.interrupt()

    def run(self) -> None:
        while not self._stop.is_set():
            self._up_since = DOWN
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  # not even a defect may end the thread
                if not (self._stale or self._stop.is_set()):
                    self._recover(error)
            if not self._stale:
                self._rest()

    def _recover(self, error: Exception) -> None:
        """A watch may break: that is told only where it cannot be taken up again."""
        self._broken = True
        self._wait = error.wait if isinstance(error, ApiError) else 0.0
        log.debug("%s", error, exc_info=None if isinstance(error, ApiError) else error)
        if isinstance(error, Expired) and self._revision:
            log.info("%s: all nodes are listed again", error)
            self._revision = ""
            if time.monotonic() - self._listed > CALM:
                self._pause = FIRST_PAUSE
            return
        if self._up_since == DOWN:
            self._vain += 1
        if self._vain >= PATIENCE:
            self._hooks.failed(told(error))

    def _rest(self) -> None:
        """Not as long on all nodes, when all have lost the same server."""
        if time.monotonic() - self._up_since > CALM:
            self._pause = FIRST_PAUSE
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        wait, self._wait = self._wait, 0.0
        self._stop.wait(max(pause * SystemRandom().uniform(0.5, 1), wait))

    def _follow(self) -> None:
        """Until the watch ends as it was told to. Raises Expired, ApiError."""
        with self._lock:
            self._stale = False
        if not self.name:
            self.name = self._api.node_of_pod(*self._pod)
        if self._revision and self._broken and is_older(self._api.revision(), self._revision):
            raise Expired("Kubernetes is at an older state than before")
        if not self._revision:
            self._list()
        stream = self._api.watch(self._revision, SystemRandom().randint(*WATCH_SECONDS))
        try:
            with self._lock:
                self._stream = stream
                if self._stale or self._stop.is_set():
                    return
            self._up_since = time.monotonic()
            self._broken, self._vain = False, 0
            self._hooks.connected()
            for kind, node in stream:
                self._take(kind, node)
        finally:
            with self._lock:
                self._stream = None
            stream.close()

    def _list(self) -> None:
        own: OwnNode | None = None
        peers: dict[str, Lease | str] = {}

        def take(node: Json) -> None:
            nonlocal own
            name = named(node)
            if name == self.name:
                own = self.own_of(node)
            elif (lease := self._peer(node)) is not None:
                peers[name] = lease

        self._revision = self._api.list_nodes(take)
        self._listed = time.monotonic()
        self._hooks.listed(own, peers)

    def _take(self, kind: str, node: Json) -> None:
        if kind != "BOOKMARK":
            name, gone = named(node), kind == "DELETED"
            if name == self.name:
                self._hooks.own(None if gone else self.own_of(node))
            else:
                self._hooks.peer(name, None if gone else self._peer(node))
        metadata = node.get("metadata")
        if not (isinstance(metadata, dict) and metadata.get("resourceVersion")):
            raise ApiError("the watch of nodes tells of one without a resourceVersion")
        self._revision = str(metadata["resourceVersion"])

    def own_of(self, node: Json) -> OwnNode:
        """Raises ApiError."""
        try:
            return own_node(node, self._names)
        except MALFORMED:
            raise ApiError(f'node "{self.name}" is told in other words than those of the Kubernetes API') from None

    def _peer(self, node: Json) -> Lease | str | None:
        try:
            return peer(node, self._names)
        except MALFORMED:
            return "it is told in other words than those of the Kubernetes API"
