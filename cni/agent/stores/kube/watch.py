"""A resource of Kubernetes, listed once and then watched. A watch that ends is resumed where it ended.

Where the API server cannot do that (it remembers less, or was restored to an older state) all is listed again.
"""

from __future__ import annotations

import time
from random import SystemRandom
from typing import TYPE_CHECKING, Protocol

from cni.agent.stores.kube.client import log
from cni.agent.stores.kube.errors import ApiError, Expired
from cni.agent.stores.kube.resource import is_older, object_key, resource_version
from cni.agent.stores.watchloop import CALM, DOWN, Backoff, WatchLoop, reason_of
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from cni.agent.stores.kube.client import Api
    from cni.agent.stores.kube.resource import Json, Key, Resource

WATCH_SECONDS = 300, 600  # at random between these, so that not all nodes come back at once
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
PATIENCE = 2  # attempts that fail before that is reported


class ListHandler(Protocol):
    """The taker of a list of all objects, in place of all before."""

    def add(self, key: Key, item: Json) -> None:
        """Takes an object; what it raises ends the attempt."""

    def end(self) -> None:
        """Is called once there are no more."""


class WatchHandler(Record):
    """Functions that a watcher calls, in its own thread.

    `prepare` returns what to watch, before each attempt, and may raise ApiError. `list` returns the taker of a list;
    without its end the list has failed. `changed` with one object by its key, None if it was deleted; what it raises
    ends the attempt. `connected` once the watch is open; `failed` with the reason.
    """

    prepare: Callable[[], Resource]
    list: Callable[[], ListHandler]
    changed: Callable[[Key, Json | None], None]
    connected: Callable[[], None]
    failed: Callable[[str], None]


class ResourceWatcher(WatchLoop):
    """The watcher of one resource, whichever it is."""

    def __init__(self, api: Api, handler: WatchHandler, stop: Event) -> None:
        super().__init__(stop, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
        self._api, self._handler = api, handler
        self.heard_at = 0.0  # when the API server last sent something, in seconds since the epoch
        self._revision = ""
        self._listed = -DOWN  # when
        self._broken = False  # the last watch, or the attempt at one, has failed
        self._failures = 0
        self._is_outdated = False

    def relist(self) -> None:
        """Lists all again, from any thread."""
        self._is_outdated = True
        self.interrupt()

    def _recover(self, error: Exception) -> None:
        """A watch may break: that is reported only where it cannot be resumed."""
        self._broken = True
        log.debug("%s", error, exc_info=None if isinstance(error, ApiError) else error)
        if isinstance(error, Expired) and self._revision:
            log.info("%s: listing all again", error)
            self._revision = ""
            if time.monotonic() - self._listed > CALM:
                self._backoff.reset()
            return
        if self._up_since == DOWN:
            self._failures += 1
        if self._failures >= PATIENCE:
            self._handler.failed(reason_of(error))

    def _follow(self) -> None:
        self._follow_resource(self._handler.prepare())

    def _follow_resource(self, resource: Resource) -> None:
        """Raises Expired, ApiError."""
        if self._is_outdated:
            self._is_outdated, self._revision = False, ""
        if self._revision and self._broken and is_older(self._api.revision(resource), self._revision):
            raise Expired(f"{resource.name}: the API server is at an older revision than before")
        if not self._revision:
            self._list(resource)
        stream = self._api.watch(resource, self._revision, SystemRandom().randint(*WATCH_SECONDS))
        with self._opened(stream) as wanted:
            if not wanted:
                return
            self._up_since = time.monotonic()
            self._broken, self._failures = False, 0
            self.heard_at = time.time()
            self._handler.connected()
            for kind, item in stream:
                self._take(resource, kind, item)

    def _list(self, resource: Resource) -> None:
        listing = self._handler.list()
        self._revision = self._api.list(resource, lambda item: listing.add(object_key(resource, item), item))
        self._listed = time.monotonic()
        listing.end()

    def _take(self, resource: Resource, kind: str, item: Json) -> None:
        self.heard_at = time.time()
        if kind != "BOOKMARK":
            key = object_key(resource, item)
            self._handler.changed(key, None if kind == "DELETED" else item)
        self._revision = resource_version(resource, item)
