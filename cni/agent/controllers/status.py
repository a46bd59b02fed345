"""Keeps a snapshot of the agent's state, so that whoever asks for it disturbs the loop as little as possible."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.agent.controllers.base import NEVER, Listener
from cni.agent.logs import recent_events
from cni.agent.model.events import Failed
from cni.agent.node.addresses import LeasedAddresses
from cni.agent.policy.denials import PacketDenied
from cni.agent.runtime.control import Asked
from cni.agent.status.document import document, states
from cni.agent.status.snapshot import Snapshot, StoreState, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.controllers.base import AgentEvent
    from cni.agent.controllers.policy import PolicyController
    from cni.agent.controllers.reconciler import Reconciler
    from cni.agent.node.addresses import AddressUse
    from cni.agent.runtime.health import Health
    from cni.protocol.jsontext import JsonValue

    Object = dict[str, JsonValue]

PAUSE_SECONDS = 1.0  # between snapshots, however much changes


class StatusBoard(Listener):
    """The last snapshot, which any thread may read. The loop runs it behind the controllers that it describes."""

    def __init__(self, node: str, store: str, health: Health) -> None:
        """`store`: the kind of the store of leases."""
        self._node, self._health = node, health
        self._store = StoreState(store)
        self.snapshot = Snapshot(node, time.time(), self._store)
        self._reconciler: Reconciler | None = None
        self._policies: PolicyController | None = None
        self._taken_at = -NEVER
        self._is_stale, self._was_in_force = True, False
        self._leased = LeasedAddresses()
        self._counted: tuple[Snapshot, dict[str, int]] | None = None

    def follow(self, reconciler: Reconciler, policies: PolicyController | None) -> None:
        """Takes the controllers whose state it shows."""
        self._reconciler, self._policies = reconciler, policies

    @property
    def due_at(self) -> float:
        """The moment of the next snapshot: soon after a change."""
        return self._taken_at + PAUSE_SECONDS if self._is_stale or self._was_in_force != self._in_force else NEVER

    @property
    def _in_force(self) -> bool:
        return self._policies is not None and self._policies.in_force

    def handle(self, event: AgentEvent) -> None:
        """Takes in that something has changed, and the store's errors."""
        if isinstance(event, Failed):
            self._store = self._store._replace(last_error=event.reason, last_error_time=time.time())
        self._is_stale |= not isinstance(event, Asked | PacketDenied)

    def request_full_sync(self) -> None:
        self._is_stale = True

    def sync(self) -> bool:
        """Takes a snapshot. Returns True."""
        self._take()
        return True

    def _take(self) -> Snapshot:
        self._taken_at, self._is_stale, self._was_in_force = time.monotonic(), False, self._in_force
        if self._reconciler is not None:
            self.snapshot = take(self._node, self._store, self._reconciler, self._policies)
        return self.snapshot

    def document_now(self) -> Callable[[], Object]:
        """Takes a snapshot, in the loop's thread. Returns a function for another thread, which makes it a document."""
        snapshot = self._take()
        return lambda: self._document(snapshot, detailed=True)

    def document(self, *, detailed: bool) -> Object:
        """Returns the document of the last snapshot; for any thread."""
        return self._document(self.snapshot, detailed=detailed)

    def peers_by_state(self) -> dict[str, int]:
        """Returns the numbers of the last snapshot; for the thread of metrics."""
        snapshot = self.snapshot
        if self._counted is None or self._counted[0] is not snapshot:
            self._counted = snapshot, states(snapshot)
        return self._counted[1]

    def address_use(self) -> list[AddressUse]:
        """Returns how many addresses of this node's subnets are leased; for the thread of metrics."""
        lease = self.snapshot.lease
        return self._leased.count(lease.subnets) if lease is not None else []

    def _document(self, snapshot: Snapshot, *, detailed: bool) -> Object:
        return document(snapshot, self._health.reasons, recent_events() if detailed else (), detailed=detailed)
