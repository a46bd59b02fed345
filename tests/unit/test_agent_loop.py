"""The agent's loop: a scripted store, scripted changes in the kernel, and controllers that note what they are asked."""

from __future__ import annotations

import math
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from cni.agent.model.events import Changed, Failed
from cni.agent.runtime import loop as runtime
from cni.agent.runtime.loop import EventQueue, Loop
from cni.kernel.events import Overflowed
from cni.kernel.netlink import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.agent.controllers.base import AgentEvent, Notifications
    from cni.agent.model.events import StoreEvent
    from cni.agent.model.lease import Node

SIGNALS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM
PATIENCE_SECONDS = 60  # for a loop that does not end
GONE, FAILED = Changed({"10.5.2.0-24": None}), Failed("503 Service Unavailable")


class Source:
    """A descriptor that is readable while it has answers left: what `read` returns, or raises."""

    def __init__(self) -> None:
        self.answers: list[list[tuple[int, bytes]] | Exception] = []
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._descriptor

    def add(self, answer: list[tuple[int, bytes]] | Exception) -> None:
        self.answers.append(answer)
        os.eventfd_write(self._descriptor, 1)

    def read(self) -> list[tuple[int, bytes]]:
        if not self.answers:
            return []
        os.eventfd_read(self._descriptor)
        answer, *self.answers = self.answers
        if self.answers:
            os.eventfd_write(self._descriptor, 1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        os.close(self._descriptor)


class Files(Source):
    """`renewed`: how often the watches were renewed."""

    renewed = 0

    def renew(self) -> None:
        self.renewed += 1

    def read(self) -> bool:  # type: ignore[override]  # files tell only that they were touched
        return bool(super().read())


class Store:
    """A store that emits its events when it is started."""

    def __init__(self, *events: StoreEvent) -> None:
        self.events, self.closed = events, False

    def start(self, emit: Callable[[StoreEvent], None]) -> None:
        for event in self.events:
            emit(event)

    def register(self, node: Node) -> None: ...

    def ready(self) -> None: ...

    def close(self) -> None:
        self.closed = True


class Recorder:
    """A controller; each of `steps` happens in one sync, which fails if it is False. The sync after ends the loop."""

    def __init__(self, *steps: Callable[[], object], disturbance: str = "") -> None:
        self.calls: list[str] = []
        self.handled: list[AgentEvent] = []
        self.is_due, self.later = False, math.inf
        self._steps, self._disturbance = [*steps], disturbance

    @property
    def due_at(self) -> float:
        return 0.0 if self.is_due else self.later

    def handle(self, event: AgentEvent) -> None:
        self.handled.append(event)
        self.is_due = True

    def handle_links(self, notifications: Notifications) -> list[str]:
        if any(payload == b"malformed" for _, payload in notifications):
            raise Malformed("too short")
        return [self._disturbance for _ in notifications if self._disturbance]

    def handle_rules(self, notifications: Notifications) -> None:
        if notifications:
            self.calls.append("rules")
            self.is_due = True

    def request_full_sync(self) -> None:
        self.calls.append("full")
        self.is_due = True

    def request_rules_sync(self) -> None:
        self.calls.append("rules lost")
        self.is_due = True

    def sync(self) -> bool:
        self.is_due = False
        self.calls.append("sync")
        if self._steps:
            return self._steps.pop(0)() is not False
        signal.raise_signal(signal.SIGTERM)
        return True


class Scene:
    """A loop of these controllers, and all that it waits for."""

    def __init__(self) -> None:
        self.links, self.rules, self.files, self.queue = Source(), Source(), Files(), EventQueue()

    def run(self, *controllers: Recorder, store: Store | None = None) -> Loop:
        loop = Loop(controllers, [store or Store()], self.queue, (self.links, self.rules), self.files)
        loop.run()
        return loop

    def later(self, source: Source, answer: list[tuple[int, bytes]] | Exception) -> Callable[[], object]:
        """Returns a step that succeeds, during which something happens."""
        return lambda: source.add(answer)

    def close(self) -> None:
        for source in (self.links, self.rules, self.files):
            source.close()
        os.close(self.queue.fileno())


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """Pauses are short, and what only the time brings is a day away."""
    monkeypatch.setattr(runtime, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(runtime, "RETRY_SECONDS", (0.0,))
    monkeypatch.setattr(runtime, "FULL_SYNC_SECONDS", 86400.0)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the loop does not end"))
    signal.alarm(PATIENCE_SECONDS)
    scene = Scene()
    yield scene
    signal.alarm(0)
    scene.close()
    for number, handler in zip(SIGNALS, handlers, strict=True):
        signal.signal(number, handler)


def test_it_begins_with_a_full_sync_and_closes_the_store_at_its_end(scene: Scene) -> None:
    controller, store = Recorder(), Store()
    scene.run(controller, store=store)
    assert controller.calls == ["full", "sync"]
    assert store.closed
    assert scene.files.renewed == 1


def test_events_reach_every_controller_in_their_order(scene: Scene) -> None:
    first, second = Recorder(), Recorder()
    scene.run(first, second, store=Store(FAILED, GONE))
    assert first.handled == second.handled == [FAILED, GONE]


def test_a_store_event_is_synced_without_a_full_sync(scene: Scene) -> None:
    controller = Recorder(lambda: scene.queue.put(GONE))
    scene.run(controller)
    assert controller.calls == ["full", "sync", "sync"]
    assert controller.handled == [GONE]


def test_sources_without_news_are_not_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (scene.links, scene.rules, scene.files):
        monkeypatch.setattr(source, "read", lambda: pytest.fail("there is nothing to read"))
    controller = Recorder(lambda: scene.queue.put(GONE))
    scene.run(controller)
    assert controller.handled == [GONE]


def test_only_controllers_that_are_due_sync(scene: Scene) -> None:
    idle = Recorder(lambda: True)
    busy = Recorder(scene.later(scene.links, [(16, b"")]), disturbance="eth0 is gone")
    idle.request_full_sync = lambda: None  # type: ignore[method-assign]  # nothing makes it due
    scene.run(idle, busy)
    assert idle.calls == []
    assert busy.calls == ["full", "sync", "full", "sync"]


def test_a_disturbance_leads_to_a_full_sync_of_all(scene: Scene) -> None:
    first = Recorder(scene.later(scene.links, [(16, b"")]), disturbance="eth0 is gone")
    second = Recorder(lambda: True)
    scene.run(first, second)
    assert first.calls == second.calls == ["full", "sync", "full", "sync"]


def test_changes_that_disturb_nobody_lead_to_nothing(scene: Scene) -> None:
    def happen() -> None:
        scene.links.add([(16, b""), (17, b"")])
        scene.queue.put(GONE)

    controller = Recorder(happen, lambda: scene.queue.put(GONE))
    scene.run(controller)
    assert controller.calls == ["full", "sync", "sync", "sync"]
    assert scene.links.answers == []


@pytest.mark.parametrize("answer", [Overflowed(), [(16, b"malformed")]])
def test_lost_changes_lead_to_a_full_sync(scene: Scene, answer: list[tuple[int, bytes]] | Exception) -> None:
    controller = Recorder(scene.later(scene.links, answer))
    scene.run(controller)
    assert controller.calls == ["full", "sync", "full", "sync"]


def test_a_touched_file_leads_to_a_full_sync(scene: Scene) -> None:
    controller = Recorder(scene.later(scene.files, [(0, b"")]))
    scene.run(controller)
    assert controller.calls == ["full", "sync", "full", "sync"]
    assert scene.files.renewed == 2


def test_changes_of_links_wait_after_those_of_rules_and_delay_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ADD changes rules first, then a dozen times links: it should not wake podwired for each."""

    def happen() -> None:
        scene.links.add([(16, b"")])
        scene.queue.put(GONE)

    monkeypatch.setattr(runtime, "LINK_PAUSE_SECONDS", 86400.0)
    controller = Recorder(scene.later(scene.rules, [(16, b"")]), happen, disturbance="eth0 is gone")
    scene.run(controller)
    assert controller.calls == ["full", "sync", "rules", "sync", "sync"]
    assert scene.links.answers


@pytest.mark.parametrize("name", ["rules", "links"])
def test_changes_of_links_are_taken_in_after_the_pause(scene: Scene, name: str) -> None:
    source = getattr(scene, name)
    controller = Recorder(scene.later(source, [(16, b"")]), scene.later(scene.links, [(16, b"")]), disturbance="gone")
    scene.run(controller)
    assert controller.calls[-2:] == ["full", "sync"]
    assert scene.links.answers == []


def test_changes_all_the_time_do_not_prolong_the_pause(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = Loop([], [Store()], scene.queue, (scene.links, scene.rules), scene.files)
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for step in (0.0, 0.4, 0.4):
        now += step * runtime.LINK_PAUSE_SECONDS
        scene.rules.add([(16, b"")])
        loop._drain({scene.rules.fileno()})
    assert loop._is_link_pause
    now += 0.4 * runtime.LINK_PAUSE_SECONDS
    assert not loop._is_link_pause


@pytest.mark.parametrize(("answer", "call"), [([(16, b"")], "rules"), (Overflowed(), "rules lost")])
def test_changes_of_rules_make_rules_due(scene: Scene, answer: list[tuple[int, bytes]] | Exception, call: str) -> None:
    controller = Recorder(scene.later(scene.rules, answer))
    scene.run(controller)
    assert controller.calls == ["full", "sync", call, "sync"]


def test_a_failed_sync_is_tried_again_in_full_though_others_succeed(scene: Scene) -> None:
    failing, fine = Recorder(lambda: False, lambda: False), Recorder(*[lambda: True] * 3)
    scene.run(failing, fine)
    assert failing.calls == ["full", "sync"] * 3
    assert fine.calls == ["full", "sync"] * 3


def test_sighup_leads_to_a_full_sync(scene: Scene) -> None:
    controller = Recorder(lambda: signal.raise_signal(signal.SIGHUP))
    scene.run(controller)
    assert controller.calls == ["full", "sync", "full", "sync"]


def test_pauses_between_retries_grow_to_a_limit_and_start_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "RETRY_SECONDS", (0.5, 1.0, 2.0))
    controller = Recorder(*[lambda: False] * 4, lambda: True, lambda: False)
    loop = Loop([controller], [Store()], scene.queue, (scene.links, scene.rules), scene.files)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    pauses = []
    for _ in range(6):
        loop._due = 1000.0
        loop._sync_if_due()
        pauses.append(loop._due - 1000.0)
    assert pauses == [0.5, 1.0, 2.0, 2.0, runtime.FULL_SYNC_SECONDS, 0.5]


def test_the_store_is_closed_where_a_controller_raises(scene: Scene) -> None:
    def fail() -> bool:
        raise RuntimeError("a defect")

    store = Store()
    with pytest.raises(RuntimeError, match="a defect"):
        scene.run(Recorder(fail), store=store)
    assert store.closed


def test_a_controller_is_asked_again_at_the_moment_that_it_names(scene: Scene) -> None:
    """Without that moment the loop would wait for a day."""
    controller = Recorder(lambda: setattr(controller, "later", time.monotonic() + 0.01), lambda: True)
    scene.run(controller)
    assert controller.calls == ["full", "sync", "sync", "sync"]


def test_all_stores_are_started_and_closed(scene: Scene) -> None:
    controller, stores = Recorder(), [Store(GONE), Store(FAILED)]
    Loop([controller], stores, scene.queue, (scene.links, scene.rules), scene.files).run()
    assert controller.handled == [GONE, FAILED]
    assert all(store.closed for store in stores)
