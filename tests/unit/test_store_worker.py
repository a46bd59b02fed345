"""The threads of a store: which of its errors stands, how a lease is kept, how long is paused."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

import pytest

from cni.agent.model.events import Failed, Listed, Recovered, StoreEvent
from cni.agent.model.lease import Node, NodeAddress
from cni.agent.stores import worker
from cni.agent.stores.errors import LONGEST_TEXT, StoreError
from cni.agent.stores.watchloop import Backoff
from cni.agent.stores.worker import LEASE, WATCH, EventSource, StoreWorker
from cni.protocol.address import parse_ip
from tests.machine import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


log = logging.getLogger("podwired.test")


class Parts(EventSource[StoreEvent]):
    """A store whose parts fail and succeed as a test says."""

    def __init__(self) -> None:
        super().__init__(log, Failed, Recovered())
        self.events: list[StoreEvent] = []
        self.start(self.events.append)

    def fail(self, part: str, reason: str) -> list[StoreEvent]:
        return self._new(self._fail, part, reason)

    def succeed(self, part: str) -> list[StoreEvent]:
        return self._new(self._succeed, part)

    def emit(self, event: StoreEvent) -> list[StoreEvent]:
        return self._new(self._emit, event)

    def _new(self, act: Callable[..., None], *arguments: object) -> list[StoreEvent]:
        before = len(self.events)
        act(*arguments)
        return self.events[before:]


def test_an_error_stands_until_the_part_that_failed_succeeds() -> None:
    parts = Parts()
    assert parts.fail(LEASE, "no subnet is free") == [Failed("no subnet is free")]
    assert parts.emit(Listed({})) == [Listed({})]
    assert parts.succeed(WATCH) == []
    assert parts.succeed(LEASE) == [Recovered()]
    assert parts.succeed(LEASE) == []


def test_an_error_that_stands_is_emitted_once() -> None:
    parts = Parts()
    parts.fail(LEASE, "no subnet is free")
    assert parts.fail(LEASE, "no subnet is free") == []
    assert parts.fail(LEASE, "permission denied") == [Failed("permission denied")]


def test_where_one_of_two_parts_succeeds_the_error_of_the_other_stands() -> None:
    parts = Parts()
    parts.fail(LEASE, "no subnet is free")
    assert parts.fail(WATCH, "unreachable") == [Failed("unreachable")]
    assert parts.succeed(WATCH) == [Failed("no subnet is free")]
    parts.fail(WATCH, "unreachable")
    assert parts.succeed(LEASE) == []
    assert parts.succeed(WATCH) == [Recovered()]


def test_the_error_that_was_emitted_last_is_replaced_by_the_one_before_it() -> None:
    parts = Parts()
    parts.fail(LEASE, "no subnet is free")
    parts.fail(WATCH, "unreachable")
    parts.fail(LEASE, "permission denied")
    assert parts.succeed(LEASE) == [Failed("unreachable")]
    parts.fail(LEASE, "no subnet is free")
    assert parts.succeed(WATCH) == []


def test_a_closed_store_emits_nothing() -> None:
    parts = Parts()
    parts.close()
    assert parts.emit(Listed({})) == parts.fail(LEASE, "too late") == []


class Stuck(EventSource[StoreEvent]):
    """A store whose threads wait for a server that does not answer."""

    def __init__(self, answered: threading.Event) -> None:
        super().__init__(log, Failed, Recovered())
        self._answered = answered
        for number in range(3):
            self._add_thread(f"stuck-{number}", self._wait)

    def _wait(self) -> None:
        self._answered.wait()


def test_all_threads_that_are_stuck_are_waited_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CLOSING_SECONDS", 0.05)
    waits: list[float | None] = []
    join = threading.Thread.join

    def noted(thread: threading.Thread, timeout: float | None = None) -> None:
        waits.append(timeout)
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", noted)
    answered = threading.Event()
    store = Stuck(answered)
    store.start(lambda _: None)
    store.close()
    answered.set()
    first, *others = waits
    assert first is not None
    assert 0 < first <= 0.05
    assert others == [pytest.approx(0.0, abs=0.01)] * 2


class Keeper(StoreWorker[Node]):
    """A store that keeps the node that is presented; `results` are what each sync returns, or raises."""

    def __init__(self, *results: float | Exception | None) -> None:
        super().__init__("test", log, Backoff(0.001, 0.002))
        self.results = list(results)
        self.synced: queue.Queue[Node] = queue.Queue()
        self.reconnected = 0

    def _reconnect(self) -> None:
        self.reconnected += 1

    def _desired(self) -> Node | None:
        return self._node

    def _sync(self, desired: Node) -> float | None:
        self.synced.put(desired)
        result = self.results.pop(0) if self.results else None
        if isinstance(result, Exception):
            raise result
        return result

    def connect(self) -> None:
        self._connected()


def node(number: int) -> Node:
    return Node("host-gw", 0, (NodeAddress(parse_ip(f"192.0.2.{number}")),))


@pytest.fixture
def events() -> list[StoreEvent]:
    return []


@pytest.fixture
def keeper(request: pytest.FixtureRequest, events: list[StoreEvent]) -> Iterator[Keeper]:
    running = Keeper(*request.param)
    running.start(events.append)
    running.register(node(1))
    yield running
    running.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "test-keeper"]


@pytest.mark.parametrize("keeper", [(0.001, None)], indirect=True)
def test_a_lease_is_looked_at_again_when_it_is_due(keeper: Keeper) -> None:
    assert [keeper.synced.get(timeout=20) for _ in range(2)] == [node(1)] * 2
    keeper.register(node(2))
    assert keeper.synced.get(timeout=20) == node(2)
    assert keeper.reconnected == 1


@pytest.mark.parametrize("keeper", [(StoreError("full"), ZeroDivisionError("x"), StoreError("full"))], indirect=True)
def test_a_sync_that_fails_is_tried_until_it_succeeds(keeper: Keeper, events: list[StoreEvent]) -> None:
    until(lambda: Recovered() in events, "it has recovered")
    (first, second, third, last) = events
    assert first == third == Failed("full")
    assert isinstance(second, Failed)
    assert second.reason.startswith("a defect of podwired (ZeroDivisionError at test_store_worker.py:")
    assert last == Recovered()
    assert keeper.synced.qsize() == 4


@pytest.mark.parametrize("keeper", [(StoreError("unreachable", 3600.0),)], indirect=True)
def test_a_server_that_is_reachable_again_is_not_waited_for(keeper: Keeper, events: list[StoreEvent]) -> None:
    until(lambda: events == [Failed("unreachable")], "it has failed")
    keeper.connect()
    until(lambda: events[1:] == [Recovered()], "it has recovered")


def test_pauses_grow_to_their_limit_and_begin_again() -> None:
    backoff = Backoff(1.0, 4.0)
    for limit in (1.0, 2.0, 4.0, 4.0):
        assert limit / 2 <= backoff.next() <= limit
    backoff.reset()
    assert backoff.next(StoreError("busy", 30.0)) == 30.0
    assert 1.0 <= backoff.next(ValueError()) <= 2.0


def test_an_error_is_bounded() -> None:
    assert len(str(StoreError("x" * 5000))) == LONGEST_TEXT + len("...")
