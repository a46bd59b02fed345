"""A thread that follows a server's stream of changes, and resumes it whenever it ends."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from random import SystemRandom
from threading import Lock
from typing import TYPE_CHECKING

from cni.agent.logs import error_text
from cni.agent.stores.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from threading import Event

    from cni.agent.stores.http import Lines

CALM = 5.0  # seconds for which a stream has to live until the failures before it are forgotten
DOWN = float("inf")


class Backoff:
    """The pauses after failures: each twice the last, up to a limit, and not the same on all nodes."""

    def __init__(self, first: float, limit: float) -> None:
        self._first, self._limit = first, limit
        self._pause = first

    def next(self, error: Exception | None = None) -> float:
        """Returns seconds until the next attempt, but not less than the server asked for."""
        pause, self._pause = self._pause, min(2 * self._pause, self._limit)
        wait = error.retry_after if isinstance(error, StoreError) else 0.0
        return max(pause * SystemRandom().uniform(0.5, 1), wait)

    def reset(self) -> None:
        self._pause = self._first


class WatchLoop(ABC):
    """The loop of a watching thread."""

    def __init__(self, stop: Event, backoff: Backoff) -> None:
        self._stop, self._backoff = stop, backoff
        self._up_since = DOWN
        self._lock = Lock()  # of the two below, which other threads touch
        self._stream: Lines | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """Ends the stream, from any thread: it is opened again at once, over another connection."""
        with self._lock:
            self._interrupted = True
            if self._stream is not None:
                self._stream.interrupt()

    def run(self) -> None:
        """Follows until the store is closed."""
        while not self._stop.is_set():
            error = self._attempt()
            if self._interrupted or self._stop.is_set():
                continue
            if time.monotonic() - self._up_since > CALM:
                self._backoff.reset()
            if error is not None:
                self._recover(error)
            self._stop.wait(self._backoff.next(error))

    def _attempt(self) -> Exception | None:
        self._up_since = DOWN
        with self._lock:
            self._interrupted = False
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001  # not even a defect may end the thread
            return error
        return None

    @contextmanager
    def _opened(self, stream: Lines) -> Iterator[bool]:
        """Yields False where nobody wants the stream any more; closes it."""
        try:
            with self._lock:
                self._stream = stream
                wanted = not (self._interrupted or self._stop.is_set())
            yield wanted
        finally:
            with self._lock:
                self._stream = None
            stream.close()

    @abstractmethod
    def _follow(self) -> None:
        """Lists where that is needed, then follows a stream until it ends. Raises StoreError."""

    @abstractmethod
    def _recover(self, error: Exception) -> None:
        """Reports a failure where that is due, and decides where the next attempt begins."""


def reason_of(error: Exception) -> str:
    """Returns the cause of a failure in words for people."""
    return str(error) if isinstance(error, StoreError) else error_text(error)
