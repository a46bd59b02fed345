"""The objects of one kind that a store has emitted, and the events that lead to others.

Of an object only its hash is kept: whoever takes the events keeps the object, in the form that it needs. Hashes have 64
bits and depend on a key of this process, so that no change of an object is missed, by chance or by design.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.events import ObjectsChanged, ObjectsListed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.agent.policy.events import Key, PolicyEvent, PolicyObject

BATCH = 500  # objects in one event


class KnownObjects:
    """`emit` gets what differs."""

    def __init__(self, kind: str, emit: Callable[[PolicyEvent], None]) -> None:
        self.hashes: dict[Key, int] = {}
        self.is_listed = False
        self.kind, self.emit = kind, emit

    def replace(self, objects: Mapping[Key, PolicyObject]) -> None:
        """Takes all objects in the place of those before."""
        listing = Listing(self)
        for key, new in objects.items():
            listing.add(key, new)
        listing.end()

    def change(self, key: Key, new: PolicyObject | None) -> None:
        """Takes one object; None: it is gone."""
        if self.hashes.get(key) == (None if new is None else hash(new)):
            return
        if new is None:
            del self.hashes[key]
        else:
            self.hashes[key] = hash(new)
        self.emit(ObjectsChanged(self.kind, {key: new}))


class Listing:
    """A list of all objects that comes one by one and is emitted in pieces. What it lacks is gone with its end."""

    def __init__(self, known: KnownObjects) -> None:
        self._known = known
        self._missing = {*known.hashes}
        self._changes: dict[Key, PolicyObject | None] = {}  # not emitted yet
        self._hashes: dict[Key, int] = {}  # of these

    def add(self, key: Key, new: PolicyObject) -> None:
        self._missing.discard(key)
        if self._known.hashes.get(key) != (number := hash(new)):
            self._changes[key], self._hashes[key] = new, number
            if len(self._changes) == BATCH:
                self._emit()

    def end(self) -> None:
        gone = self._missing & self._known.hashes.keys()  # some may have gone while the list came
        for key in gone:
            del self._known.hashes[key]
        self._changes.update(dict.fromkeys(gone))
        self._emit()
        if not self._known.is_listed:
            self._known.is_listed = True
            self._known.emit(ObjectsListed(self._known.kind))

    def _emit(self) -> None:
        self._known.hashes.update(self._hashes)
        changes, self._changes, self._hashes = self._changes, {}, {}
        if changes:
            self._known.emit(ObjectsChanged(self._known.kind, changes))
