"""The threads of a store: those that watch, and one that keeps the own lease.

Events are emitted with the lock held, so in the order in which they happened.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING, Generic, TypeVar

from cni.agent.model.events import Failed, Recovered, StoreEvent
from cni.agent.stores.errors import StoreError
from cni.agent.stores.folderwatch import StopEvent
from cni.agent.stores.watchloop import Backoff, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from logging import Logger

    from cni.agent.model.lease import Node

Emitted = TypeVar("Emitted")
Desired = TypeVar("Desired")

CLOSING_SECONDS = 1.0  # for all threads together
WATCH, LEASE = "watch", "lease"  # parts of any store that may fail


class EventSource(Generic[Emitted]):
    """The emitter of a store's events. An error of one of its parts stands until that part succeeds,
    whatever else is emitted.
    """

    def __init__(self, log: Logger, failed: Callable[[str], Emitted], recovered: Emitted) -> None:
        """`failed` returns the event of an error, `recovered` is that of the end of all errors."""
        self._log, self._failed, self._recovered = log, failed, recovered
        self._stop = StopEvent()
        self._wake = Condition()  # its lock is that of all state of a store
        self._errors: dict[str, str] = {}  # by part, in the order in which they were emitted
        self._threads: list[Thread] = []

    def start(self, emit: Callable[[Emitted], None]) -> None:
        self._deliver = emit
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads; none emits anything from then on."""
        with self._wake:
            self._stop.set()
            self._wake.notify_all()
        self._interrupt()
        end = time.monotonic() + CLOSING_SECONDS  # a request that is under way may take longer
        for thread in self._threads:
            if thread is not current_thread() and thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _add_thread(self, name: str, target: Callable[[], None]) -> None:
        """Adds a thread, which `start` begins."""
        self._threads.append(Thread(target=target, name=name, daemon=True))

    def _interrupt(self) -> None:
        """Ends what the threads wait for."""

    def _emit(self, event: Emitted) -> None:
        with self._wake:
            if not self._stop.is_set():
                self._deliver(event)

    def _fail(self, part: str, reason: str) -> None:
        """Logs an error of a part, and emits it unless it stands already."""
        with self._wake:
            self._log.warning("%s", reason)  # repetitions are limited by the log
            if self._errors.get(part) != reason:
                self._errors.pop(part, None)
                self._errors[part] = reason
                self._emit(self._failed(reason))

    def _succeed(self, part: str) -> None:
        """Ends the part's error. Emits another part's that stands, if this one was emitted last."""
        with self._wake:
            if part not in self._errors:
                return
            was_last = part == next(reversed(self._errors))
            del self._errors[part]
            if not self._errors:
                self._emit(self._recovered)
            elif was_last:
                self._emit(self._failed(next(reversed(self._errors.values()))))


class StoreWorker(EventSource[StoreEvent], ABC, Generic[Desired]):
    """A store that keeps a lease."""

    def __init__(self, name: str, log: Logger, backoff: Backoff) -> None:
        super().__init__(log, Failed, Recovered())
        self._backoff = backoff
        self._node: Node | None = None
        self._disturbed = False
        self._add_thread(f"{name}-keeper", self._keep)

    def register(self, node: Node) -> None:
        before = self._node
        if before is not None and [address.public_ip for address in before.addresses] != [
            address.public_ip for address in node.addresses
        ]:
            # Connections may be from an address that the node no longer has: they would hang for half a minute.
            self._reconnect()
        with self._wake:
            self._node = node
            self._update()

    def _update(self) -> None:
        """Takes in that the node, or what it depends on, has changed; with the lock held."""
        self._disturb()

    def _disturb(self) -> None:
        """Wakes the thread that keeps the lease."""
        with self._wake:
            self._disturbed = True
            self._wake.notify_all()

    def _connected(self) -> None:
        """Ends the watch's error, and retries what failed while the server was unreachable."""
        with self._wake:
            self._succeed(WATCH)
            if LEASE in self._errors:
                self._disturb()

    @abstractmethod
    def _reconnect(self) -> None:
        """Opens new connections in place of all that are open."""

    @abstractmethod
    def _desired(self) -> Desired | None:
        """Returns the desired lease; None until configuration and node agree: it is kept as it was."""

    @abstractmethod
    def _sync(self, desired: Desired) -> float | None:
        """Makes the lease so; returns in how many seconds it has to be looked at again. Raises StoreError."""

    def _keep(self) -> None:
        pause: float | None = None
        while (desired := self._await_desired(pause)) is not None:
            try:
                pause = self._sync(desired)
            except Exception as error:  # noqa: BLE001  # not even a defect may end the thread
                if not isinstance(error, StoreError):
                    self._log.debug("%s", error, exc_info=error)
                pause = self._backoff.next(error)
                self._fail(LEASE, reason_of(error))
            else:
                self._backoff.reset()
                self._succeed(LEASE)

    def _await_desired(self, pause: float | None) -> Desired | None:
        """Returns what to sync when there is need, at the latest after the pause; None at the end."""
        end = None if pause is None else time.monotonic() + pause
        with self._wake:
            while not self._stop.is_set():
                left = None if end is None else end - time.monotonic()
                due = self._disturbed or (left is not None and left <= 0)
                if due and (desired := self._desired()) is not None:
                    self._disturbed = False
                    return desired
                self._wake.wait(None if due else left)
        return None
