"""The objects of one kind as a store has emitted them, and the events that lead to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.events import ObjectChanged, ObjectsListed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.policy.events import Key, PolicyEvent, PolicyObject


class KnownObjects:
    """`emit` gets what differs. The records are those that were emitted: who keeps them shares their memory."""

    def __init__(self, kind: str, emit: Callable[[PolicyEvent], None]) -> None:
        self._kind, self._emit = kind, emit
        self._objects: dict[Key, PolicyObject] = {}
        self._is_listed = False

    def shared(self, key: Key, new: PolicyObject) -> PolicyObject:
        """Returns the known object if the new one is equal to it, so that a list takes no memory beside the last."""
        known = self._objects.get(key)
        return new if known is None or known != new else known

    def replace(self, objects: dict[Key, PolicyObject]) -> None:
        """Takes all objects in the place of those before."""
        known, self._objects = self._objects, objects
        changes: dict[Key, PolicyObject | None] = {key: None for key in known if key not in objects}
        changes.update({key: new for key, new in objects.items() if known.get(key) != new})
        if changes or not self._is_listed:
            self._is_listed = True
            self._emit(ObjectsListed(self._kind, changes))

    def change(self, key: Key, new: PolicyObject | None) -> None:
        """Takes one object of those that were listed; None: it is gone."""
        if self._objects.get(key) == new:
            return
        if new is None:
            del self._objects[key]
        else:
            self._objects[key] = new
        self._emit(ObjectChanged(self._kind, key, new))
