"""Recorders of what stores emit, and of the state that follows from it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cni.agent.model.events import Changed, Configured, Failed, Held, Listed, Recovered
from cni.agent.model.lease import Lease
from cni.agent.policy.events import (
    KINDS,
    LOCAL_PODS,
    REMOTE_PODS,
    ObjectsChanged,
    ObjectsForgotten,
    ObjectsListed,
    PolicyStoreFailed,
)
from tests.machine import until

if TYPE_CHECKING:
    from cni.agent.model.events import Store, StoreEvent
    from cni.agent.model.lease import Node
    from cni.agent.policy.events import Key, PolicyEvent, PolicyObject, PolicyStore


class StoreRecorder:
    """All events of a store. `node` is presented as soon as the network is known.

    Unless `dated`, leases are kept without the time of their creation, which is the server's to choose.
    """

    def __init__(self, store: Store, node: Node | None, *, dated: bool = False) -> None:
        self.store, self._node, self._dated = store, node, dated
        self.events: list[StoreEvent] = []
        self.leases: dict[str, Lease | str] = {}
        self.held: Held | None = None
        self.configured: Configured | None = None
        self.failure = ""
        self._lock = threading.RLock()

    def record(self, event: StoreEvent) -> None:
        with self._lock:
            if isinstance(event, Configured):
                self.configured = event
                node, self._node = self._node, None
                if node is not None:
                    self.store.register(node)
            elif isinstance(event, Held):
                self.held = event
            elif isinstance(event, Listed):
                self.leases = {key: self._kept(lease) for key, lease in event.leases.items()}
            elif isinstance(event, Changed):
                self.leases = {
                    key: self._kept(lease) for key, lease in (self.leases | event.leases).items() if lease is not None
                }
            elif isinstance(event, Failed):
                self.failure = event.reason
            elif isinstance(event, Recovered):
                self.failure = ""
            self.events.append(event)  # last: those who wait for it read what follows from it

    def _kept(self, lease: Lease | str) -> Lease | str:
        return lease if self._dated or not isinstance(lease, Lease) else lease._replace(created=0)

    def of(self, *kinds: type[StoreEvent]) -> list[StoreEvent]:
        return [event for event in self.events if isinstance(event, kinds)]

    @property
    def errors(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, Failed)]

    def wait_held(self, *subnets: str) -> Lease:
        """Waits for a lease of these subnets, or any, and for the list; returns it. A key will do as well."""
        key = "&".join(subnets).replace("/", "-")
        until(lambda: self.held is not None and key in ("", self.held.lease.key), f"{key or 'a lease'} is held")
        until(lambda: self.of(Listed), "all leases are listed")
        assert self.held is not None
        return self.held.lease

    def wait_error(self, *parts: str) -> str:
        """Waits for an error with all the parts, now or before; returns it."""
        return until(
            lambda: next((text for text in self.errors if all(part in text for part in parts)), ""), f"{parts}"
        )

    def wait_leases(self, *keys: str) -> None:
        until(lambda: self.leases.keys() == {*keys}, f"the leases are {keys}")


class PolicyRecorder:
    """All events of a store of policies, and the objects of each kind that follow from them."""

    def __init__(self, store: PolicyStore) -> None:
        self.store = store
        self.events: list[PolicyEvent] = []
        self.objects: dict[str, dict[Key, PolicyObject]] = {kind: {} for kind in KINDS}
        self.listed: set[str] = set()
        self.failure = ""

    def record(self, event: PolicyEvent) -> None:
        """Takes an event. It has to tell a difference, and no pod is both of this node and of another one."""
        if isinstance(event, ObjectsChanged):
            assert event.changes
            for key, item in event.changes.items():
                self._apply(self.objects[event.kind], key, item)
            assert not self.objects[LOCAL_PODS].keys() & self.objects[REMOTE_PODS].keys()
        elif isinstance(event, ObjectsListed):
            assert event.kind not in self.listed
            self.listed.add(event.kind)
        elif isinstance(event, ObjectsForgotten):
            self.listed.discard(event.kind)
            assert self.objects[event.kind].keys() == event.keys
            self.objects[event.kind] = {}
        else:
            self.failure = event.reason if isinstance(event, PolicyStoreFailed) else ""
        self.events.append(event)

    def _apply(self, objects: dict[Key, PolicyObject], key: Key, item: PolicyObject | None) -> None:
        assert objects.get(key) != item
        if item is None:
            del objects[key]
        else:
            objects[key] = item

    def of(self, kind: str) -> list[PolicyEvent]:
        """Returns the events about one kind."""
        return [
            event
            for event in self.events
            if isinstance(event, (ObjectsChanged, ObjectsListed, ObjectsForgotten)) and event.kind == kind
        ]

    def changes(self, kind: str) -> list[set[str]]:
        """Returns the names in each change of a kind."""
        return [
            {"/".join(filter(None, key)) for key in event.changes}
            for event in self.of(kind)
            if isinstance(event, ObjectsChanged)
        ]

    @property
    def errors(self) -> list[str]:
        return [event.reason for event in self.events if isinstance(event, PolicyStoreFailed)]

    def names(self, kind: str) -> set[str] | None:
        """Returns the objects of a kind, as in `namespace/name`; None until it is complete."""
        if kind not in self.listed:
            return None
        return {"/".join(filter(None, key)) for key in self.objects[kind]}

    def wait(self, kind: str, *names: str) -> None:
        until(lambda: self.names(kind) == {*names}, f"the objects of {kind} are {names}")

    def wait_error(self, *parts: str) -> str:
        """Waits for an error with all the parts, now or before; returns it."""
        return until(
            lambda: next((text for text in self.errors if all(part in text for part in parts)), ""), f"{parts}"
        )

    def wait_recovered(self) -> None:
        until(lambda: self.events and not self.failure, "no error stands")
