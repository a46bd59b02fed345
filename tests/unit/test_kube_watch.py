"""A watcher of any resource when the API server fails: what it reports, and what it does not."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.stores.kube import watch
from cni.agent.stores.kube.errors import ApiError, Expired
from cni.agent.stores.kube.resource import Resource
from cni.agent.stores.kube.watch import ResourceWatcher, WatchHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.agent.stores.kube.client import Api

PODS = Resource("pods", "/api/v1/pods", 10)
REFUSED = ApiError("refused")


def pod(name: str, revision: int) -> dict[str, Any]:
    return {"metadata": {"namespace": "blue", "name": name, "resourceVersion": str(revision)}}


class Stream:
    """The events of a watch, and the error that ends it."""

    def __init__(self, events: list[tuple[str, dict[str, Any]]], end: Exception | None) -> None:
        self._events, self._end = events, end

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from self._events
        if self._end is not None:
            raise self._end

    def close(self) -> None:
        pass


class Listed:
    """A list whose objects become one call at its end."""

    def __init__(self, calls: list[Any]) -> None:
        self._calls, self._items = calls, dict[Any, Any]()

    def add(self, key: tuple[str, str], item: dict[str, Any]) -> None:
        self._items[key] = (*key, item["metadata"]["resourceVersion"])

    def end(self) -> None:
        self._calls.append(("listed", self._items))


class Played:
    """An API server that answers from a script, and ends the watcher with it; `calls` are those of the handler."""

    def __init__(self, *script: Any) -> None:
        self.calls: list[Any] = []
        self.stop = Event()
        self._script = list(script)
        handler = WatchHandler(
            lambda: PODS,
            lambda: Listed(self.calls),
            lambda key, item: self.calls.append((key, item and (*key, item["metadata"]["resourceVersion"]))),
            lambda: self.calls.append("connected"),
            lambda reason: self.calls.append(("failed", reason)),
        )
        self.watcher = ResourceWatcher(cast("Api", self), handler, self.stop)

    def run(self) -> list[Any]:
        self.watcher.run()
        return self.calls

    def _next(self, request: str) -> Any:
        if not self._script:
            self.stop.set()
            raise REFUSED
        expected, answer = self._script.pop(0)
        assert request == expected, self.calls
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def list(self, resource: Resource, handle: Callable[[dict[str, Any]], None]) -> str:
        assert resource is PODS
        revision, items = self._next("list")
        for item in items:
            handle(item)
        return str(revision)

    def revision(self, resource: Resource) -> str:
        assert resource is PODS
        return str(self._next("revision"))

    def watch(self, resource: Resource, revision: str, seconds: int) -> Stream:
        assert resource is PODS
        low, high = watch.WATCH_SECONDS
        assert low <= seconds <= high
        answer: Stream = self._next(f"watch {revision}")
        return answer


def ended(*events: tuple[str, dict[str, Any]], by: Exception | None = None) -> Stream:
    return Stream([*events], by)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.002)


LIST = ("list", (5, [pod("one", 3), pod("two", 4)]))
LISTED = ("listed", {("blue", "one"): ("blue", "one", "3"), ("blue", "two"): ("blue", "two", "4")})


def test_all_are_listed_once_and_then_watched() -> None:
    events = ("ADDED", pod("three", 6)), ("MODIFIED", pod("one", 7)), ("DELETED", pod("two", 8))
    calls = Played(LIST, ("watch 5", ended(*events)), ("watch 8", ended())).run()
    changes = [
        (("blue", "three"), ("blue", "three", "6")),
        (("blue", "one"), ("blue", "one", "7")),
        (("blue", "two"), None),
    ]
    assert calls == [LISTED, "connected", *changes, "connected"]


def test_a_bookmark_only_moves_the_revision_that_is_resumed_from() -> None:
    bookmark = {"kind": "Pod", "metadata": {"resourceVersion": "70"}, "spec": {}}
    calls = Played(LIST, ("watch 5", ended(("BOOKMARK", bookmark))), ("watch 70", ended())).run()
    assert calls == [LISTED, "connected", "connected"]


def test_a_watch_that_breaks_is_resumed_where_it_ended_without_a_report() -> None:
    broken = ended(("DELETED", pod("two", 8)), by=REFUSED)
    calls = Played(LIST, ("watch 5", broken), ("revision", 9), ("watch 8", ended())).run()
    assert calls == [LISTED, "connected", (("blue", "two"), None), "connected"]


def test_an_unreachable_server_is_reported_at_the_second_failure() -> None:
    away = [("revision", REFUSED)]
    played = Played(LIST, ("watch 5", ended(by=REFUSED)), *away, ("revision", 5), ("watch 5", ended()))
    assert played.run() == [LISTED, "connected", "connected"]
    played = Played(LIST, ("watch 5", ended(by=REFUSED)), *(2 * away), ("revision", 5), ("watch 5", ended()))
    assert played.run() == [LISTED, "connected", ("failed", "refused"), "connected"]
    assert Played(("list", REFUSED), ("list", REFUSED), LIST).run()[:2] == [("failed", "refused"), LISTED]


def test_an_expired_revision_is_listed_again() -> None:
    again = ("list", (90, [pod("one", 80)]))
    for expired in (("watch 5", ended(by=Expired("gone"))), ("watch 5", Expired("gone"))):
        calls = Played(LIST, expired, again, ("watch 90", ended())).run()
        assert [call for call in calls if call != "connected"] == [
            LISTED,
            ("listed", {("blue", "one"): ("blue", "one", "80")}),
        ]


def test_all_are_listed_again_when_somebody_wants_it() -> None:
    def outdated() -> Stream:
        played.watcher.relist()
        return ended()

    played = Played(LIST, ("watch 5", outdated), ("list", (7, [pod("two", 6)])), ("watch 7", ended()))
    assert played.run() == [LISTED, ("listed", {("blue", "two"): ("blue", "two", "6")}), "connected"]


def test_a_list_that_expires_halfway_begins_again() -> None:
    calls = Played(("list", Expired("gone")), LIST, ("watch 5", ended())).run()
    assert calls == [LISTED, "connected"]


def test_a_server_at_an_older_revision_is_listed_again() -> None:
    older = ("revision", 3), ("list", (3, [pod("one", 3)]))
    calls = Played(LIST, ("watch 5", ended(by=REFUSED)), *older, ("watch 3", ended())).run()
    assert calls == [LISTED, "connected", ("listed", {("blue", "one"): ("blue", "one", "3")}), "connected"]


def test_not_even_a_defect_ends_it() -> None:
    defect = "list", ZeroDivisionError()
    calls = Played(defect, defect, LIST, ("watch 5", ended())).run()
    (_, reason), *rest = calls
    assert str(reason).startswith("a defect of podwired (ZeroDivisionError at test_kube_watch.py:")
    assert rest == [LISTED, "connected"]
