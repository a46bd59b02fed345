"""How nodes are followed when the API server fails: what is told, and what is not."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.stores.kube import watch as kubefollower
from cni.agent.stores.kube.client import Expired
from cni.agent.stores.kube.config import ApiError
from cni.agent.stores.kube.nodes import names_of
from cni.agent.stores.kube.options import KubeOptions
from cni.agent.stores.kube.watch import Watcher, WatchHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.agent.stores.kube.client import Api

OPTIONS = KubeOptions("one", ("", ""), "", "", "", "flannel.alpha.coreos.com/", "/n", set_network_condition=True)
PREFIX = "flannel.alpha.coreos.com/"
REFUSED = ApiError("refused")


def node(name: str, revision: int, marked: bool = True) -> dict[str, Any]:
    said = {"backend-type": "host-gw", "public-ip": "192.0.2.9", "kube-subnet-manager": "true" if marked else "false"}
    annotations = {PREFIX + key: text for key, text in said.items()}
    metadata = {"name": name, "resourceVersion": str(revision), "annotations": annotations}
    return {"metadata": metadata, "spec": {"podCIDRs": ["10.5.9.0/24"]}}


class Stream:
    """What one watch tells, and the error that ends it."""

    def __init__(self, events: list[tuple[str, dict[str, Any]]], end: Exception | None) -> None:
        self._events, self._end = events, end

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield from self._events
        if self._end is not None:
            raise self._end

    def close(self) -> None:
        pass


class Played:
    """An API server that answers from a script, and ends the follower with it; `said` is all that happened."""

    def __init__(self, *script: Any) -> None:
        self.said: list[Any] = []
        self.stop = Event()
        self._script = list(script)
        handler = WatchHandler(
            lambda own, peers: self.said.append(("listed", own is not None, sorted(peers))),
            lambda own: self.said.append(("own", own is not None)),
            lambda name, lease: self.said.append((name, lease is not None)),
            lambda: self.said.append("connected"),
            lambda why: self.said.append(("failed", why)),
        )
        self.follower = Watcher(cast("Api", self), OPTIONS, names_of(PREFIX), handler, self.stop)

    def run(self) -> list[Any]:
        self.follower.run()
        return self.said

    def _next(self, asked: str) -> Any:
        if not self._script:
            self.stop.set()
            raise REFUSED
        expected, answer = self._script.pop(0)
        assert asked == expected, self.said
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list_nodes(self, take: Callable[[dict[str, Any]], None]) -> str:
        revision, nodes = self._next("list")
        for one in nodes:
            take(one)
            if isinstance(one, Exception):
                raise one
        return str(revision)

    def revision(self) -> str:
        return str(self._next("revision"))

    def watch(self, revision: str, seconds: int) -> Stream:
        low, high = kubefollower.WATCH_SECONDS
        assert low <= seconds <= high
        answer: Stream = self._next(f"watch {revision}")
        return answer


def ended(*events: tuple[str, dict[str, Any]], by: Exception | None = None) -> Stream:
    return Stream([*events], by)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubefollower, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(kubefollower, "LONGEST_PAUSE", 0.002)


LIST = ("list", (5, [node("one", 3), node("two", 4), node("other", 5, marked=False)]))
LISTED = ("listed", True, ["two"])


def test_all_are_listed_once_and_then_watched() -> None:
    events = ("ADDED", node("three", 6)), ("MODIFIED", node("one", 7)), ("DELETED", node("two", 8))
    said = Played(LIST, ("watch 5", ended(*events)), ("watch 8", ended())).run()
    assert said == [LISTED, "connected", ("three", True), ("own", True), ("two", False), "connected"]


def test_a_bookmark_only_moves_the_place_from_which_is_gone_on() -> None:
    bookmark = {"kind": "Node", "metadata": {"resourceVersion": "70"}, "spec": {}}
    said = Played(LIST, ("watch 5", ended(("BOOKMARK", bookmark))), ("watch 70", ended())).run()
    assert said == [LISTED, "connected", "connected"]


def test_a_watch_that_breaks_is_taken_up_where_it_ended_without_a_word() -> None:
    broken = ended(("DELETED", node("two", 8)), by=REFUSED)
    said = Played(LIST, ("watch 5", broken), ("revision", 9), ("watch 8", ended())).run()
    assert said == [LISTED, "connected", ("two", False), "connected"]


def test_a_server_away_is_told_at_the_second_attempt_in_vain() -> None:
    away = [("revision", REFUSED)]
    played = Played(LIST, ("watch 5", ended(by=REFUSED)), *away, ("revision", 5), ("watch 5", ended()))
    assert played.run() == [LISTED, "connected", "connected"]
    played = Played(LIST, ("watch 5", ended(by=REFUSED)), *(2 * away), ("revision", 5), ("watch 5", ended()))
    assert played.run() == [LISTED, "connected", ("failed", "refused"), "connected"]
    assert Played(("list", REFUSED), ("list", REFUSED), LIST).run()[:2] == [("failed", "refused"), LISTED]


def test_what_the_server_has_forgotten_is_listed_again() -> None:
    again = ("list", (90, [node("one", 80)]))
    for forgotten in (("watch 5", ended(by=Expired("gone"))), ("watch 5", Expired("gone"))):
        said = Played(LIST, forgotten, again, ("watch 90", ended())).run()
        assert [one for one in said if one != "connected"] == [LISTED, ("listed", True, [])]


def test_a_list_that_the_server_forgets_halfway_begins_again() -> None:
    said = Played(("list", Expired("gone")), LIST, ("watch 5", ended())).run()
    assert said == [LISTED, "connected"]


def test_a_server_at_an_older_state_is_listed_anew() -> None:
    older = ("revision", 3), ("list", (3, [node("one", 3)]))
    said = Played(LIST, ("watch 5", ended(by=REFUSED)), *older, ("watch 3", ended())).run()
    assert said == [LISTED, "connected", ("listed", True, []), "connected"]


def test_a_node_that_is_not_there_is_listed_as_none() -> None:
    said = Played(("list", (5, [node("two", 4)])), ("watch 5", ended(("DELETED", node("one", 6))))).run()
    assert said == [("listed", False, ["two"]), "connected", ("own", False)]


def test_not_even_a_defect_ends_it() -> None:
    said = Played(("list", ZeroDivisionError()), ("list", ZeroDivisionError("x")), LIST, ("watch 5", ended())).run()
    (_, why), *rest = said
    assert str(why).startswith("a defect of podwired (ZeroDivisionError at test_kube_follower.py:")
    assert rest == [LISTED, "connected"]
