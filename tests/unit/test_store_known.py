"""The differences that a store of policies emits, and pods that come by two watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cni.agent.policy.events import (
    LOCAL_PODS,
    NAMESPACES,
    REMOTE_PODS,
    ObjectsChanged,
    ObjectsForgotten,
    ObjectsListed,
)
from cni.agent.policy.objects import Namespace
from cni.agent.stores.policy import known
from cni.agent.stores.policy.known import KnownObjects, Listing
from cni.agent.stores.policy.pods import Pods
from tests.unit.strategies import PROFILE

if TYPE_CHECKING:
    import pytest

    from cni.agent.policy.events import Key, PolicyEvent, PolicyObject


def spaces(*names: str, **labels: str) -> dict[Key, PolicyObject]:
    return {("", name): Namespace(name, tuple(labels.items())) for name in names}


def test_a_list_is_emitted_as_its_differences_and_once_as_complete() -> None:
    events: list[PolicyEvent] = []
    objects = KnownObjects(NAMESPACES, events.append)
    objects.replace(spaces("a", "b"))
    assert events == [ObjectsChanged(NAMESPACES, spaces("a", "b")), ObjectsListed(NAMESPACES)]
    events.clear()
    objects.replace(spaces("a", "b"))
    assert events == []
    objects.replace(spaces("b", "c", team="x"))
    assert events == [ObjectsChanged(NAMESPACES, {**spaces("b", "c", team="x"), ("", "a"): None})]


def test_a_list_without_objects_is_complete() -> None:
    events: list[PolicyEvent] = []
    KnownObjects(NAMESPACES, events.append).replace({})
    assert events == [ObjectsListed(NAMESPACES)]


def test_a_long_list_comes_in_pieces_and_what_of_it_was_not_emitted_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(known, "BATCH", 2)
    events: list[PolicyEvent] = []
    objects = KnownObjects(NAMESPACES, events.append)
    listing = Listing(objects)
    for key, space in spaces("a", "b", "c").items():
        listing.add(key, space)
    assert events == [ObjectsChanged(NAMESPACES, spaces("a", "b"))]
    events.clear()
    objects.replace(spaces("b", "c"))  # in place of the list that has failed
    assert events == [ObjectsChanged(NAMESPACES, {**spaces("c"), ("", "a"): None}), ObjectsListed(NAMESPACES)]


def test_an_object_that_goes_while_a_list_comes_is_gone_once() -> None:
    events: list[PolicyEvent] = []
    objects = KnownObjects(NAMESPACES, events.append)
    objects.replace(spaces("a", "b"))
    listing = Listing(objects)
    objects.change(("", "a"), None)
    listing.end()
    changes = [event.changes for event in events if isinstance(event, ObjectsChanged)]
    assert changes[1:] == [{("", "a"): None}, {("", "b"): None}]


def test_one_object_is_emitted_if_it_differs() -> None:
    events: list[PolicyEvent] = []
    objects = KnownObjects(NAMESPACES, events.append)
    for space in (*spaces("a").values(), *spaces("a").values(), "not readable", None, None):
        objects.change(("", "a"), space)
    assert [event.changes[("", "a")] for event in events if isinstance(event, ObjectsChanged)] == [
        *spaces("a").values(), "not readable", None,
    ]  # fmt: skip


class Seen:
    """A taker of the events of pods, which holds them to what they promise."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[Key, PolicyObject]] = {LOCAL_PODS: {}, REMOTE_PODS: {}}
        self.relists = 0
        self.sources = Pods(self.take, self.relist)
        self.truth: dict[Key, PolicyObject] = {}  # of other nodes

    def take(self, event: PolicyEvent) -> None:
        if isinstance(event, ObjectsForgotten):
            assert self.pods[event.kind].keys() == event.keys
            self.pods[event.kind] = {}
        elif isinstance(event, ObjectsChanged):
            pods = self.pods[event.kind]
            for key, pod in event.changes.items():
                assert pods.get(key) != pod
                if pod is None:
                    del pods[key]
                else:
                    pods[key] = pod
            assert not self.pods[LOCAL_PODS].keys() & self.pods[REMOTE_PODS].keys()

    def relist(self) -> None:
        self.relists += 1

    def list_remote(self) -> None:
        self.sources.remote.replace(self.truth)


NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.tuples(st.sampled_from(["local", "remote"]), NAMES, st.none() | st.sampled_from(["one", "two"]))
    | st.tuples(st.sampled_from(["forget", "list"]), NAMES, st.none()),
    max_size=30,
)


@example([("remote", "a", "one"), ("local", "a", "one"), ("local", "a", None)])
@settings(PROFILE)
@given(STEPS)
def test_whatever_the_order_of_both_watches_each_pod_is_known_once_and_none_is_lost(
    steps: list[tuple[str, str, str | None]],
) -> None:
    seen = Seen()
    here: dict[Key, PolicyObject] = {}
    for source, name, pod in steps:
        key = "blue", name
        if source == "forget":
            seen.sources.forget_remote()
            seen.list_remote()
        elif source == "list":
            seen.list_remote()
        else:
            objects = here if source == "local" else seen.truth
            objects.pop(key, None)
            if pod is not None:
                objects[key] = f"{pod} {source}"
            relists = seen.relists
            watch = seen.sources.local if source == "local" else seen.sources.remote
            watch.change(key, objects.get(key))
            if seen.relists > relists:
                seen.list_remote()
        assert seen.pods[LOCAL_PODS] == here
    # A pod that runs elsewhere is hidden only behind one of its name here.
    assert seen.pods[REMOTE_PODS] == {key: pod for key, pod in seen.truth.items() if key not in here}


def test_a_pod_that_is_bound_to_this_node_causes_no_list_when_it_is_gone() -> None:
    seen = Seen()
    key = "blue", "web"
    seen.sources.remote.change(key, "unbound")
    seen.sources.local.change(key, "bound")
    seen.sources.remote.change(key, None)
    seen.sources.local.change(key, None)
    assert (seen.pods, seen.relists) == ({LOCAL_PODS: {}, REMOTE_PODS: {}}, 0)
