"""A resource of Kubernetes that a cluster may not have: its definition can be installed and removed at any time."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.agent.stores.kube.errors import Absent, ApiError, Forbidden
from cni.agent.stores.kube.watch import ResourceWatcher

if TYPE_CHECKING:
    from threading import Event

    from cni.agent.stores.kube.client import Api
    from cni.agent.stores.kube.resource import Resource
    from cni.agent.stores.kube.watch import WatchHandler

LOOK_SECONDS = 300.0  # until an absent resource is looked for again
FORBIDDEN_SECONDS = 60.0  # for which an API server may deny what it allows later: it may just have started


class OptionalWatcher(ResourceWatcher):
    """The watcher of the first of `resources`, its versions, that the API server has; without any there are no objects.

    Where the agent may not read them, as its role is older than it, there are none, either, but that is an error.
    """

    def __init__(self, api: Api, handler: WatchHandler, stop: Event, resources: tuple[Resource, ...]) -> None:
        super().__init__(api, handler, stop)
        self._resources = resources
        self._known = False  # how many there are
        self._forbidden_since = 0.0

    def _follow(self) -> None:
        for resource in self._resources:
            try:
                self._follow_resource(resource)
            except Absent:
                self._revision = ""
            else:
                return
        self._end_empty()
        self._handler.connected()
        self._stop.wait(LOOK_SECONDS)

    def _list(self, resource: Resource) -> None:
        super()._list(resource)
        self._known = True

    def _recover(self, error: Exception) -> None:
        super()._recover(error)
        if not isinstance(error, Forbidden):
            self._forbidden_since = 0.0
            return
        self._forbidden_since = self._forbidden_since or time.monotonic()
        if not self._known and time.monotonic() - self._forbidden_since > FORBIDDEN_SECONDS:
            with suppress(ApiError):  # the store was closed
                self._end_empty()

    def _end_empty(self) -> None:
        """Takes in that there are no objects."""
        self._known, self.heard_at = True, 0.0
        self._handler.list().end()
