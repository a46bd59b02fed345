"""The Kubernetes store of policies against a scripted API: what is watched, and what faults of a server leave of it."""

from __future__ import annotations

import gzip
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.policy.events import (
    CLUSTER_POLICIES,
    KINDS,
    LOCAL_PODS,
    NAMESPACES,
    NODES,
    POLICIES,
    REMOTE_PODS,
    ObjectsChanged,
    ObjectsForgotten,
    ObjectsListed,
)
from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod
from cni.agent.stores.kube.options import KubeOptions
from cni.agent.stores.policy import kube
from cni.agent.stores.policy.kube import METADATA, KubePolicyStore
from tests.machine import until
from tests.recorder import PolicyRecorder
from tests.unit.kube_api import ObjectApi, query_of, rejection
from tests.unit.scripted import answer, chunk, head

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("hasty")

LOCAL = "pods spec.nodeName=one"
REMOTE = "pods spec.nodeName!=,spec.nodeName!=one,status.phase!=Succeeded,status.phase!=Failed"
RESOURCES = {
    NAMESPACES: "namespaces",
    POLICIES: "networkpolicies",
    CLUSTER_POLICIES: "clusternetworkpolicies",
    LOCAL_PODS: LOCAL,
    REMOTE_PODS: REMOTE,
    NODES: "nodes",
}
ALWAYS = {NAMESPACES, POLICIES, CLUSTER_POLICIES, LOCAL_PODS}  # the others are watched while they are wanted
OPTIONS = KubeOptions("one", ("", ""), "", "", "", "flannel.alpha.coreos.com/", "", set_network_condition=False)
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def pod(name: str, number: int = 9, node: str = "one", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "blue", "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "it"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": f"10.244.1.{number}"}]},
    }


def policy(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "blue", "name": name}, "spec": {"podSelector": {}, **spec}}


class Cluster(ObjectApi):
    """An API of what NetworkPolicy is about."""

    def __init__(self) -> None:
        super().__init__(*RESOURCES.values())

    def put(self, kind: str, item: dict[str, Any]) -> None:
        self.collections[RESOURCES[kind]].store(item["metadata"]["name"], item)

    def delete(self, kind: str, name: str) -> None:
        self.collections[RESOURCES[kind]].delete(name)

    def send(self, kind: str, event: dict[str, Any]) -> None:
        self.collections[RESOURCES[kind]].send(event)

    def count(self, verb: str, kind: str) -> int:
        return self.kinds().count(f"{verb} {RESOURCES[kind]}")

    def fail_all(self, verb: str, kind: str, *answers: Any) -> None:
        self.fail(f"{verb} {RESOURCES[kind]}", *answers)

    def wait_watched(self, *kinds: str) -> None:
        until(lambda: all(self.collections[RESOURCES[kind]].watching for kind in kinds), f"{kinds} are watched")


@pytest.fixture
def api() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.put(NAMESPACES, namespace("blue", team="a"))
    cluster.put(POLICIES, policy("deny"))
    cluster.put(LOCAL_PODS, pod("web", 2, app="web"))
    cluster.put(REMOTE_PODS, pod("db", 3, "two", app="db"))
    with cluster.server:
        yield cluster


@contextmanager
def running(api: Cluster, **changed: Any) -> Iterator[PolicyRecorder]:
    store = KubePolicyStore(OPTIONS._replace(server=api.server.url, **changed))
    recorder = PolicyRecorder(store)
    store.start(recorder.record)
    try:
        yield recorder
    finally:
        api.server.over.set()
        store.close()


@pytest.fixture
def recorder(api: Cluster) -> Iterator[PolicyRecorder]:
    with running(api) as running_store:
        api.wait_watched(NAMESPACES, POLICIES, LOCAL_PODS)
        yield running_store


def test_each_kind_is_listed_and_its_records_are_emitted(recorder: PolicyRecorder) -> None:
    labels = ("kubernetes.io/metadata.name", "blue"), ("team", "a")
    assert recorder.objects[NAMESPACES] == {("", "blue"): Namespace("blue", labels)}
    deny = recorder.objects[POLICIES]["blue", "deny"]
    assert isinstance(deny, NetworkPolicy)
    assert (deny.ingress, deny.egress) == ((), None)
    web = recorder.objects[LOCAL_PODS]["blue", "web"]
    assert isinstance(web, Pod)
    assert (web.labels, web.addresses, web.node) == ((("app", "web"),), (bytes([10, 244, 1, 2]),), "one")
    until(lambda: recorder.listed == ALWAYS, "all are listed")
    assert [type(event) for event in recorder.of(LOCAL_PODS)] == [ObjectsChanged, ObjectsListed]


def test_only_the_metadata_of_namespaces_is_asked_for(api: Cluster, recorder: PolicyRecorder) -> None:
    assert recorder.failure == ""
    accepted = {(api.kind_of(request), request.headers["accept"]) for request in api.server.requests}
    assert {(kind, types) for kind, types in accepted if "namespaces" in kind} == {
        ("list namespaces", METADATA[0]),
        ("watch namespaces", METADATA[1]),
    }
    assert {types for kind, types in accepted if "namespaces" not in kind} == {"application/json"}


def test_objects_that_come_change_and_go_are_emitted_one_by_one(api: Cluster, recorder: PolicyRecorder) -> None:
    before = len(recorder.events)
    api.put(POLICIES, policy("allow", ingress=[{}]))
    recorder.wait(POLICIES, "blue/allow", "blue/deny")
    api.put(LOCAL_PODS, pod("web", 4, app="web"))
    until(lambda: len(recorder.changes(LOCAL_PODS)) == 2, "the new address is known")
    api.delete(POLICIES, "deny")
    recorder.wait(POLICIES, "blue/allow")
    api.put(NAMESPACES, namespace("green"))
    recorder.wait(NAMESPACES, "blue", "green")
    assert all(isinstance(event, ObjectsChanged) and len(event.changes) == 1 for event in recorder.events[before:])


def test_a_change_of_what_no_policy_asks_for_is_not_emitted(api: Cluster, recorder: PolicyRecorder) -> None:
    item = pod("web", 2, app="web")
    item["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    api.put(LOCAL_PODS, item)
    api.put(LOCAL_PODS, pod("next", 5))
    recorder.wait(LOCAL_PODS, "blue/next", "blue/web")
    assert recorder.changes(LOCAL_PODS) == [{"blue/web"}, {"blue/next"}]


def test_each_watch_has_the_time_at_which_it_last_brought_something(api: Cluster, recorder: PolicyRecorder) -> None:
    until(lambda: {(kind,) for kind in (NAMESPACES, POLICIES, LOCAL_PODS)} <= {*recorder.store.heard()}, "all are open")
    assert (REMOTE_PODS,) not in recorder.store.heard()
    before = recorder.store.heard()
    api.send(POLICIES, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}})
    until(lambda: recorder.store.heard()[(POLICIES,)] > before[(POLICIES,)], "a bookmark has come")
    assert recorder.store.heard()[(NAMESPACES,)] == before[(NAMESPACES,)]
    recorder.store.watch_remote_pods(True)
    until(lambda: (REMOTE_PODS,) in recorder.store.heard(), "pods of other nodes are watched")


def test_a_pod_is_asked_for_its_node(api: Cluster) -> None:
    api.fail("get podwire-x", answer({"kind": "Pod", "spec": {"nodeName": "one"}}))
    with running(api, node_name="", pod=("podwire-system", "podwire-x")) as recorder:
        recorder.wait(LOCAL_PODS, "blue/web")
    assert "/api/v1/namespaces/podwire-system/pods/podwire-x" in [request.path for request in api.server.requests]


def test_pods_of_other_nodes_are_watched_only_while_they_are_wanted(api: Cluster, recorder: PolicyRecorder) -> None:
    recorder.store.watch_remote_pods(True)
    recorder.store.watch_remote_pods(True)
    recorder.wait(REMOTE_PODS, "blue/db")
    api.wait_watched(REMOTE_PODS)
    api.put(REMOTE_PODS, pod("cache", 6, "three"))
    recorder.wait(REMOTE_PODS, "blue/cache", "blue/db")
    recorder.store.watch_remote_pods(False)
    recorder.store.watch_remote_pods(False)
    assert recorder.events[-1] == ObjectsForgotten(REMOTE_PODS, frozenset([("blue", "cache"), ("blue", "db")]))
    until(
        lambda: not api.collections[REMOTE].watching or api.server.over.is_set() or _poked(api), "the watch has ended"
    )
    api.delete(REMOTE_PODS, "db")
    recorder.store.watch_remote_pods(True)
    recorder.wait(REMOTE_PODS, "blue/cache")
    assert api.count("list", REMOTE_PODS) == 2
    assert recorder.changes(REMOTE_PODS) == [{"blue/db"}, {"blue/cache"}, {"blue/cache"}]


def _poked(api: Cluster) -> bool:
    """Makes the server notice a connection that is closed, which it does only when it sends; never true."""
    api.send(REMOTE_PODS, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}})
    return False


def test_a_list_in_whose_middle_the_pods_are_no_longer_wanted_is_given_up(
    api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "PODS", kube.PODS._replace(page=1))
    first, proceed = threading.Event(), threading.Event()
    for number in range(10, 14):
        api.put(REMOTE_PODS, pod(f"pod-{number}", number, "two"))

    def second_page() -> Iterator[bytes]:
        first.set()
        proceed.wait(20)
        yield from api.collections[REMOTE].page(1, 1)

    api.fail_all("list", REMOTE_PODS, api.collections[REMOTE].page(1, 0), second_page())
    with running(api) as recorder:
        recorder.store.watch_remote_pods(True)
        assert first.wait(20)
        recorder.store.watch_remote_pods(False)
        proceed.set()
        assert recorder.of(REMOTE_PODS) == [ObjectsForgotten(REMOTE_PODS, frozenset())]
        recorder.store.watch_remote_pods(True)
        recorder.wait(REMOTE_PODS, "blue/db", *[f"blue/pod-{number}" for number in range(10, 14)])
        assert recorder.errors == []
        starts = [request for request in api.server.requests if api.kind_of(request) == f"list {REMOTE}"]
        assert [query_of(request).get("continue") for request in starts] == [None, "1", None, "1", "2", "3", "4"]


def test_a_list_that_comes_when_the_pods_are_no_longer_wanted_is_not_emitted(api: Cluster) -> None:
    asked, proceed = threading.Event(), threading.Event()

    def empty_page() -> Iterator[bytes]:
        asked.set()
        proceed.wait(20)
        yield from api.collections[REMOTE].page(500, 500)

    api.fail_all("list", REMOTE_PODS, empty_page())
    with running(api) as recorder:
        recorder.store.watch_remote_pods(True)
        assert asked.wait(20)
        recorder.store.watch_remote_pods(False)
        proceed.set()
        recorder.store.watch_remote_pods(True)
        recorder.wait(REMOTE_PODS, "blue/db")
        assert [type(event) for event in recorder.of(REMOTE_PODS)] == [
            ObjectsForgotten, ObjectsChanged, ObjectsListed,
        ]  # fmt: skip


def test_a_pod_that_is_created_anew_elsewhere_is_known_when_the_one_here_is_gone(
    api: Cluster, recorder: PolicyRecorder
) -> None:
    """The two watches may tell of it in any order."""
    recorder.store.watch_remote_pods(True)
    recorder.wait(REMOTE_PODS, "blue/db")
    api.put(REMOTE_PODS, pod("web", 7, "two"))
    api.put(REMOTE_PODS, pod("cache", 6, "two"))
    recorder.wait(REMOTE_PODS, "blue/cache", "blue/db")
    api.delete(LOCAL_PODS, "web")
    recorder.wait(REMOTE_PODS, "blue/cache", "blue/db", "blue/web")
    assert recorder.names(LOCAL_PODS) == set()


def test_a_pod_that_was_known_here_only_after_its_successor_elsewhere_does_not_hide_that(
    api: Cluster, recorder: PolicyRecorder
) -> None:
    recorder.store.watch_remote_pods(True)
    recorder.wait(REMOTE_PODS, "blue/db")
    api.put(LOCAL_PODS, pod("db", 8))
    recorder.wait(LOCAL_PODS, "blue/db", "blue/web")
    assert recorder.names(REMOTE_PODS) == set()
    api.delete(LOCAL_PODS, "db")
    recorder.wait(REMOTE_PODS, "blue/db")
    assert api.count("list", REMOTE_PODS) == 2


def test_an_error_of_pods_that_are_no_longer_wanted_stands_no_more(api: Cluster, recorder: PolicyRecorder) -> None:
    api.fail_all("list", REMOTE_PODS, *[rejection(403, "pods is forbidden")] * 50)
    recorder.store.watch_remote_pods(True)
    recorder.wait_error("list pods: 403 Forbidden: pods is forbidden")
    recorder.store.watch_remote_pods(False)
    assert recorder.failure == ""
    api.script.clear()
    recorder.store.watch_remote_pods(True)
    recorder.wait(REMOTE_PODS, "blue/db")
    assert len(recorder.errors) == 1


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_error_of_one_kind_stands_until_it_succeeds_and_stops_no_other(api: Cluster, status: int) -> None:
    api.fail_all("list", POLICIES, *[rejection(status, "not for you")] * 2)
    with running(api) as recorder:
        recorder.wait_error(f"list networkpolicies: {status} ")
        recorder.wait(NAMESPACES, "blue")
        recorder.wait(LOCAL_PODS, "blue/web")
        recorder.wait(POLICIES, "blue/deny")
        recorder.wait_recovered()


@pytest.mark.parametrize(
    ("kind", "item", "reason"),
    [
        (POLICIES, policy("odd", podSelector={"matchLabels": 7}), "spec.podSelector.matchLabels: expected an object"),
        (LOCAL_PODS, {"metadata": {"namespace": "blue", "name": "odd", "labels": {"a": 1}}}, "metadata.labels.a: "),
        (NAMESPACES, {"metadata": {"name": "odd", "labels": []}}, "metadata.labels: expected an object"),
    ],
)
def test_an_object_that_cannot_be_understood_is_emitted_and_logged_as_that_and_stops_no_other(
    api: Cluster, caplog: pytest.LogCaptureFixture, kind: str, item: dict[str, Any], reason: str
) -> None:
    api.put(kind, item)
    api.put(NAMESPACES, namespace("red"))
    key = (item["metadata"].get("namespace", ""), "odd")
    with running(api) as recorder:
        until(lambda: recorder.listed == ALWAYS, "all are listed")
        assert reason in str(recorder.objects[kind][key])
        assert f"{kind} {'/'.join(filter(None, key))} is ignored: {reason}" in caplog.text
        assert recorder.errors == []
        api.delete(kind, "odd")
        until(lambda: key not in recorder.objects[kind], "it is gone")


def test_a_policy_with_a_rule_that_cannot_be_understood_isolates_its_pods(
    api: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(POLICIES, policy("deny", ingress=[{"form": []}]))
    with running(api) as recorder:
        recorder.wait(POLICIES, "blue/deny")
        deny = recorder.objects[POLICIES]["blue", "deny"]
        assert isinstance(deny, NetworkPolicy)
        assert deny.ingress == ()
        assert "NetworkPolicy blue/deny isolates its pods and allows nothing: spec.ingress[0].form" in caplog.text


def test_a_defect_of_the_parser_stops_no_other_object(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(item: dict[str, Any]) -> Namespace:
        if item["metadata"]["name"] == "blue":
            raise ZeroDivisionError
        return Namespace("red", ())

    monkeypatch.setattr(kube, "parse_namespace", parse)
    api.put(NAMESPACES, namespace("red"))
    with running(api) as recorder:
        recorder.wait(NAMESPACES, "blue", "red")
        assert str(recorder.objects[NAMESPACES]["", "blue"]).startswith("a defect of podwired (ZeroDivisionError at")


def test_what_changed_while_the_server_forgot_is_emitted_as_differences(api: Cluster, recorder: PolicyRecorder) -> None:
    api.fail_all("watch", POLICIES, rejection(410, "too old resource version"))
    collection = api.collections["networkpolicies"]
    collection.objects.pop("deny")  # without an event
    collection.objects["other"] = {
        **policy("other"),
        "metadata": {**policy("other")["metadata"], "resourceVersion": "9"},
    }
    api.send(POLICIES, GONE)
    recorder.wait(POLICIES, "blue/other")
    assert recorder.changes(POLICIES) == [{"blue/deny"}, {"blue/deny", "blue/other"}]
    assert recorder.errors == []


def test_a_list_without_differences_emits_nothing(api: Cluster, recorder: PolicyRecorder) -> None:
    api.send(POLICIES, GONE)
    until(lambda: api.count("list", POLICIES) == 2, "all are listed again")
    api.put(POLICIES, policy("other"))
    recorder.wait(POLICIES, "blue/deny", "blue/other")
    assert recorder.changes(POLICIES) == [{"blue/deny"}, {"blue/other"}]


def test_an_object_that_is_deleted_while_all_are_listed_is_gone(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages are those of one revision, and what happened since comes by the watch."""
    monkeypatch.setattr(kube, "PODS", kube.PODS._replace(page=1))
    api.put(LOCAL_PODS, pod("next", 5))
    pages = [api.collections[LOCAL].page(1, 0), api.collections[LOCAL].page(1, 1)]

    def second_page() -> Iterator[bytes]:
        api.delete(LOCAL_PODS, "web")
        api.delete(LOCAL_PODS, "next")
        yield from pages[1]

    api.fail_all("list", LOCAL_PODS, pages[0], second_page())
    with running(api) as recorder:
        recorder.wait(LOCAL_PODS)
        assert recorder.changes(LOCAL_PODS) == [{"blue/web", "blue/next"}, {"blue/web"}, {"blue/next"}]


def test_a_list_that_expires_in_its_middle_begins_again(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "PODS", kube.PODS._replace(page=1))
    api.put(LOCAL_PODS, pod("next", 5))
    api.fail_all("list", LOCAL_PODS, api.collections[LOCAL].page(1, 0), rejection(410, "continue token expired"))
    with running(api) as recorder:
        recorder.wait(LOCAL_PODS, "blue/next", "blue/web")
        assert recorder.errors == []


def event_of(kind: str, item: dict[str, Any]) -> bytes:
    item["metadata"]["resourceVersion"] = "50"
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


HALF = event_of("DELETED", pod("web"))[:100]


@pytest.mark.parametrize(
    "end",
    [
        [head(Transfer_Encoding="chunked"), chunk(HALF)],  # and the connection is cut
        [head(Transfer_Encoding="chunked"), chunk(HALF), b"0\r\n\r\n"],
        [head(Transfer_Encoding="chunked"), b"%x\r\n%s" % (len(HALF) + 9, HALF)],
        [head(), HALF],
        [head(Transfer_Encoding="chunked"), chunk(event_of("BOOKMARK", {"metadata": {}}).replace(b"50", b""))],
        [head(Transfer_Encoding="chunked"), chunk(b'{"type": "BOOKMARK", "object": {"metadata": null}}\n')],
        [head(Transfer_Encoding="chunked"), chunk(event_of("DELETED", {"metadata": {"namespace": "blue"}}))],
        rejection(500, "overloaded"),
    ],
)
def test_a_watch_that_breaks_is_resumed_and_nothing_is_lost(api: Cluster, end: list[bytes]) -> None:
    api.fail_all("watch", LOCAL_PODS, end)
    with running(api) as recorder:
        api.wait_watched(LOCAL_PODS)
        assert recorder.names(LOCAL_PODS) == {"blue/web"}
        api.put(LOCAL_PODS, pod("next", 5))
        recorder.wait(LOCAL_PODS, "blue/next", "blue/web")
        assert recorder.errors == []
    whole = [request for request in api.server.requests if api.kind_of(request) == f"list {LOCAL}"]
    assert [query_of(request)["limit"] for request in whole].count("500") == 1


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.99])
def test_half_a_page_is_nothing(api: Cluster, cut: float) -> None:
    body = b"".join(api.collections[LOCAL].page(500, 0)[1:])
    part = body[: int(len(body) * cut)]
    pages = [
        [head(Content_Length=str(len(body))), part],
        answer(part),
        [head(Content_Encoding="gzip", Content_Length="60"), gzip.compress(body)[:60]],
    ]
    for page in pages:
        api.fail_all("list", LOCAL_PODS, page, page)
    with running(api) as recorder:
        recorder.wait_error("pods")
        recorder.wait(LOCAL_PODS, "blue/web")
        recorder.wait_recovered()
        assert recorder.changes(LOCAL_PODS) == [{"blue/web"}]


def test_threads_end_with_the_store(api: Cluster) -> None:
    with running(api) as recorder:
        recorder.store.watch_remote_pods(True)
        recorder.wait(REMOTE_PODS, "blue/db")
    until(
        lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("kube-")],
        "the threads have ended",
    )
    before = len(recorder.events)
    recorder.store.watch_remote_pods(False)
    recorder.store.watch_remote_pods(True)
    assert len(recorder.events) == before


def test_the_kinds_are_those_that_are_watched() -> None:
    assert {*KINDS} == RESOURCES.keys()
