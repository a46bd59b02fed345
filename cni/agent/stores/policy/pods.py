"""Pods of this node and of others, which come by two watches, so that each is known once.

A pod that is recreated on another node under the same name may be told of by the one watch before the other one says
that it is gone here. As long as a pod of this node is known, one with its name elsewhere waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.events import LOCAL_PODS, REMOTE_PODS, ObjectsChanged, ObjectsForgotten
from cni.agent.stores.policy.known import KnownObjects

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.policy.events import Key, PolicyEvent, PolicyObject


class Pods:
    """`emit` gets the events of both watches; `relist` lists the pods of other nodes again."""

    def __init__(self, emit: Callable[[PolicyEvent], None], relist: Callable[[], None]) -> None:
        self._emit, self._relist = emit, relist
        self.local = KnownObjects(LOCAL_PODS, self._emit_local)
        self.remote = KnownObjects(REMOTE_PODS, self._emit_remote)
        self._waiting: dict[Key, PolicyObject] = {}  # on other nodes, under the names of pods here
        self._withdrawn: set[Key] = set()  # emitted as pods of other nodes before those here came

    def forget_remote(self) -> None:
        """Takes in that pods of other nodes are watched no more."""
        keys = frozenset(self.remote.hashes.keys() - self._waiting.keys() - self._withdrawn)
        self._waiting.clear()
        self._withdrawn.clear()
        self.remote = KnownObjects(REMOTE_PODS, self._emit_remote)
        self._emit(ObjectsForgotten(REMOTE_PODS, keys))

    def _emit_local(self, event: PolicyEvent) -> None:
        if not isinstance(event, ObjectsChanged):
            self._emit(event)
            return
        came = [key for key, pod in event.changes.items() if pod is not None]
        if again := {key for key in came if key in self.remote.hashes} - self._waiting.keys() - self._withdrawn:
            self._withdrawn |= again
            self._emit(ObjectsChanged(REMOTE_PODS, dict.fromkeys(again)))
        self._emit(event)
        gone = event.changes.keys() - set(came)
        if back := {key: self._waiting.pop(key) for key in gone & self._waiting.keys()}:
            self._emit(ObjectsChanged(REMOTE_PODS, back))
        if lost := gone & self._withdrawn:  # perhaps it is the pod here that was the older one
            self._withdrawn -= lost
            for key in lost:
                del self.remote.hashes[key]
            self._relist()

    def _emit_remote(self, event: PolicyEvent) -> None:
        if not isinstance(event, ObjectsChanged):
            self._emit(event)
            return
        held = event.changes.keys() & self.local.hashes.keys()
        for key in held:
            self._withdrawn.discard(key)
            pod = event.changes[key]
            if pod is None:
                self._waiting.pop(key, None)
            else:
                self._waiting[key] = pod
        if changes := {key: pod for key, pod in event.changes.items() if key not in held} if held else event.changes:
            self._emit(ObjectsChanged(REMOTE_PODS, changes))
