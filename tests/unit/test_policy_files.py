"""The static store of policies: a folder of files as kubectl writes them."""

from __future__ import annotations

import errno
import json
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cni.agent.policy.clusterpolicy import ClusterPolicy, ClusterRule
from cni.agent.policy.events import (
    CLUSTER_POLICIES,
    KINDS,
    LOCAL_PODS,
    NAMESPACES,
    NODES,
    POLICIES,
    REMOTE_PODS,
    ObjectsChanged,
)
from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod, Rule
from cni.agent.stores import watchfile
from cni.agent.stores.policy import files as policyfiles
from cni.agent.stores.policy.files import PolicyFiles
from tests.machine import until
from tests.recorder import PolicyRecorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.agent.stores.policy.objects import Content

NETWORKING = "networking.k8s.io/v1"
CLUSTERED = "policy.networking.k8s.io/v1alpha2"


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str, number: int = 9, node: str = "", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "blue", "labels": labels},
        "spec": {"nodeName": node} if node else {}, "status": {"podIPs": [{"ip": f"10.5.1.{number}"}]},
    }  # fmt: skip


def policy(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "blue", "creationTimestamp": None}
    return {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": metadata,
            "spec": {"podSelector": {}, **spec}}  # fmt: skip


def clustered(name: str, action: str = "Deny") -> dict[str, Any]:
    """Returns a ClusterNetworkPolicy with a peer that is not served."""
    rule = {"action": action, "to": [{"domainNames": ["a.example"]}]}
    spec = {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]}
    return {"apiVersion": CLUSTERED, "kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec}


def node(name: str, address: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]}}  # fmt: skip


DENY = policy("deny")
ODD = policy("odd", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}])


class Folder:
    """A folder of policy files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, *objects: Any) -> None:
        text = objects[0] if isinstance(objects[0], str) else yaml.safe_dump_all(objects)
        self.put(name, text.encode())

    def put(self, name: str, content: bytes) -> None:
        """Writes as programs should, in one piece."""
        beside = self.path / ".new"
        beside.write_bytes(content)
        os.rename(beside, self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr(watchfile, "LOOK_SECONDS", 0.01)
    (tmp_path / "policies").mkdir()
    return Folder(tmp_path / "policies")


@contextmanager
def running(folder: Folder) -> Iterator[PolicyRecorder]:
    store = PolicyFiles(str(folder.path), "one")
    recorder = PolicyRecorder(store)
    store.start(recorder.record)
    try:
        yield recorder
    finally:
        store.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "policy-files"]


@pytest.fixture
def recorder(folder: Folder) -> Iterator[PolicyRecorder]:
    """A store that has read one file with a policy."""
    folder.write("web.yaml", DENY)
    with running(folder) as store:
        store.wait(POLICIES, "blue/deny")
        yield store


def test_an_empty_folder_has_the_default_namespace_and_nothing_else(folder: Folder) -> None:
    with running(folder) as recorder:
        until(lambda: recorder.listed == {*KINDS}, "all kinds are complete")
        assert recorder.names(NAMESPACES) == {"default"}
        assert all(recorder.names(kind) == set() for kind in (POLICIES, LOCAL_PODS, REMOTE_PODS))
        assert recorder.errors == []


def test_documents_lists_and_lists_of_one_kind_are_read_in_yaml_and_json(folder: Folder) -> None:
    folder.write(
        "a.yaml", namespace("blue", team="a"), {"apiVersion": "v1", "kind": "List", "items": [DENY, pod("web")]}
    )
    untold = [{key: document[key] for key in ("metadata", "spec")} for document in (policy("c"), policy("d"))]
    folder.write("b.yml", {"apiVersion": NETWORKING, "kind": "NetworkPolicyList", "items": untold})
    folder.put("c.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": [policy("e")]}).encode())
    folder.write("notes.txt", "neither YAML: [")
    folder.write(".hidden.yaml", "neither YAML: [")
    with running(folder) as recorder:
        recorder.wait(POLICIES, "blue/c", "blue/d", "blue/deny", "blue/e")
        assert recorder.names(LOCAL_PODS) == {"blue/web"}
        assert recorder.errors == []
        labels = ("kubernetes.io/metadata.name", "blue"), ("team", "a")
        assert recorder.objects[NAMESPACES]["", "blue"] == Namespace("blue", labels)


def test_cluster_policies_and_nodes_are_read_of_both_versions_that_are_the_same(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write("a.yaml", clustered("a"), node("n1", "192.0.2.1"))
    folder.write("b.yaml", {**clustered("b", action="Accept"), "apiVersion": "policy.networking.k8s.io/v1beta1"})
    with running(folder) as recorder:
        recorder.wait(CLUSTER_POLICIES, "a", "b")
        recorder.wait(NODES, "n1")
        (error,) = recorder.errors
        assert "a.yaml: ClusterNetworkPolicy a: spec.egress[0].to[0].domainNames: only rules that accept" in error
        closed = recorder.objects[CLUSTER_POLICIES]["", "a"]
        assert isinstance(closed, ClusterPolicy)
        assert closed.egress == (ClusterRule(0, "Deny", Rule()),)
        assert "b: spec.egress[0].to[0].domainNames: not supported, matches nothing" in caplog.text
        folder.write("a.yaml", {**clustered("a"), "apiVersion": "policy.networking.k8s.io/v1"})
        recorder.wait_error(
            "apiVersion 'policy.networking.k8s.io/v1' is not supported, policy.networking.k8s.io/v1alpha2 is"
        )
        recorder.store.watch_nodes(True)
        folder.remove("b.yaml")
        recorder.wait(CLUSTER_POLICIES, "a")


def test_what_the_api_server_would_add_is_added(folder: Folder) -> None:
    bare = {"apiVersion": NETWORKING, "kind": "NetworkPolicy", "metadata": {"name": "bare"},
            "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}}  # fmt: skip
    folder.write("bare.yaml", bare, pod("web"))
    with running(folder) as recorder:
        recorder.wait(POLICIES, "default/bare")
        added = recorder.objects[POLICIES]["default", "bare"]
        assert isinstance(added, NetworkPolicy)
        assert added.ingress == ()
        assert added.egress is not None
        assert added.egress[0].ports[0].protocol == "TCP"
        assert recorder.objects[NAMESPACES] == {
            ("", name): Namespace(name, (("kubernetes.io/metadata.name", name),)) for name in ("blue", "default")
        }


def test_a_pod_is_of_this_node_unless_the_file_says_another(folder: Folder) -> None:
    folder.write("pods.yaml", pod("here", 1, "one"), pod("there", 2, "two"), pod("anywhere", 3))
    with running(folder) as recorder:
        recorder.wait(LOCAL_PODS, "blue/anywhere", "blue/here")
        recorder.wait(REMOTE_PODS, "blue/there")
        remote = recorder.objects[REMOTE_PODS]["blue", "there"]
        assert isinstance(remote, Pod)
        assert remote.addresses == (bytes([10, 5, 1, 2]),)


def test_a_pod_that_moves_is_gone_before_it_comes(folder: Folder) -> None:
    folder.write("pods.yaml", pod("web", 1, "one"))
    with running(folder) as recorder:
        recorder.wait(LOCAL_PODS, "blue/web")
        for kind, node in ((REMOTE_PODS, "two"), (LOCAL_PODS, "one")):
            folder.write("pods.yaml", pod("web", 1, node))
            recorder.wait(kind, "blue/web")  # the recorder sees to the order
    assert recorder.changes(LOCAL_PODS) == [{"blue/web"}] * 3


def test_a_change_is_emitted_as_its_differences(folder: Folder, recorder: PolicyRecorder) -> None:
    before = len(recorder.events)
    folder.write("more.yaml", policy("more"))
    recorder.wait(POLICIES, "blue/deny", "blue/more")
    folder.write("more.yaml", policy("other"))
    recorder.wait(POLICIES, "blue/deny", "blue/other")
    folder.remove("web.yaml")
    recorder.wait(POLICIES, "blue/other")
    recorder.store.watch_remote_pods(True)
    recorder.store.watch_remote_pods(False)
    assert all(isinstance(event, ObjectsChanged) for event in recorder.events[before:])
    assert recorder.changes(POLICIES) == [{"blue/deny"}, {"blue/more"}, {"blue/more", "blue/other"}, {"blue/deny"}]


BROKEN = [
    ("[", "line 1: "),
    ("", "is empty"),
    ("a: &a [1]\nb: *a\n", "line 2: alias *a"),
    ("kind: NetworkPolicy\nkind: Pod\n", "line 2: duplicate key 'kind'"),
]


@pytest.mark.parametrize(("text", "cause"), BROKEN)
def test_a_file_that_is_broken_is_named_and_leaves_its_objects_and_those_of_others(
    folder: Folder, recorder: PolicyRecorder, text: str, cause: str
) -> None:
    folder.write("more.yaml", policy("more"))
    recorder.wait(POLICIES, "blue/deny", "blue/more")
    folder.write("web.yaml", text)
    reason = recorder.wait_error(str(folder.path / "web.yaml"), cause, "keeping what was read before")
    assert reason.count("web.yaml") == 1
    folder.write("more.yaml", policy("other"))
    recorder.wait(POLICIES, "blue/deny", "blue/other")
    assert recorder.failure == reason
    folder.write("web.yaml", policy("mended"))
    recorder.wait(POLICIES, "blue/mended", "blue/other")
    recorder.wait_recovered()


def test_a_file_that_is_broken_from_the_beginning_stops_no_other(folder: Folder) -> None:
    folder.write("a.yaml", "[")
    folder.put("b.json", b'{"kind": ')
    folder.write("web.yaml", DENY)
    with running(folder) as recorder:
        recorder.wait(POLICIES, "blue/deny")
        recorder.wait_error("a.yaml")
        assert "keeping" not in recorder.wait_error("b.json is not JSON")
        folder.remove("a.yaml")
        until(lambda: "b.json" in recorder.failure, "the other error stands")
        folder.remove("b.json")
        recorder.wait_recovered()


def test_ip_blocks_beside_selectors_are_refused_and_close_the_pods(folder: Folder) -> None:
    folder.write("web.yaml", DENY, ODD)
    with running(folder) as recorder:
        recorder.wait(POLICIES, "blue/deny", "blue/odd")
        recorder.wait_error("web.yaml: NetworkPolicy blue/odd: spec.ingress[0].from[0].ipBlock: ")
        odd = recorder.objects[POLICIES]["blue", "odd"]
        assert isinstance(odd, NetworkPolicy)
        assert odd.ingress == ()


def test_an_object_that_gets_an_error_stays_as_it_was_and_the_others_of_its_file_change(
    folder: Folder, recorder: PolicyRecorder
) -> None:
    good = policy("odd", ingress=[{}])
    folder.write("web.yaml", DENY, good)
    recorder.wait(POLICIES, "blue/deny", "blue/odd")
    before = recorder.objects[POLICIES]["blue", "odd"]
    for spoiled in (ODD, policy("odd", podSelector=7), {**good, "apiVersion": "extensions/v1beta1"}):
        folder.write("web.yaml", policy("other"), spoiled)
        recorder.wait_error("web.yaml: NetworkPolicy blue/odd: ", "keeping what was read before")
        recorder.wait(POLICIES, "blue/odd", "blue/other")
        assert recorder.objects[POLICIES]["blue", "odd"] == before
    folder.write("web.yaml", good)
    recorder.wait(POLICIES, "blue/odd")
    recorder.wait_recovered()


@pytest.mark.parametrize(
    ("spoiled", "cause"),
    [
        ({**pod("web"), "apiVersion": "v2"}, "Pod of another node blue/web: apiVersion 'v2' is not supported, v1 is"),
        ({"kind": "Pod", "metadata": {"name": "web"}}, "default/web: apiVersion None is not supported, v1 is"),
        ({"kind": "Pod", "apiVersion": "v1"}, "document 2: Pod: metadata.name: '' is not a name"),
        ({"kind": "Pod", "metadata": []}, "document 2: Pod: apiVersion None is not supported"),
        ({"apiVersion": "v1"}, "document 2: expected an object with a kind"),
        (7, "document 2: expected an object with a kind"),
        ({"kind": "List", "items": [{}]}, "document 2.items[0]: expected an object with a kind"),
        ({"kind": "List", "items": [7]}, "document 2.items[0]: expected an object with a kind"),
        ({"kind": "PodList", "apiVersion": "v1", "items": [{}]}, "document 2.items[0]: Pod: metadata.name: "),
    ],
)
def test_an_object_that_cannot_be_understood_stops_no_other(folder: Folder, spoiled: Any, cause: str) -> None:
    folder.write("web.yaml", DENY, spoiled, namespace("red"))
    with running(folder) as recorder:
        recorder.wait(POLICIES, "blue/deny")
        recorder.wait(NAMESPACES, "blue", "default", "red")
        assert cause in recorder.wait_error("web.yaml: ")


def test_of_two_objects_with_one_name_the_first_counts(folder: Folder) -> None:
    folder.write("a.yaml", policy("deny", ingress=[{}]))
    folder.write("b.yaml", DENY, policy("more"))
    with running(folder) as recorder:
        recorder.wait(POLICIES, "blue/deny", "blue/more")
        recorder.wait_error("b.yaml: NetworkPolicy blue/deny: duplicate, the first one counts")
        first = recorder.objects[POLICIES]["blue", "deny"]
        assert isinstance(first, NetworkPolicy)
        assert first.ingress != ()
        folder.remove("a.yaml")
        until(lambda: recorder.objects[POLICIES]["blue", "deny"] != first, "the other one counts")
        recorder.wait_recovered()


def test_other_kinds_are_named_in_the_log_and_are_no_error(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    folder.write("all.yaml", {"kind": "Service"}, {"kind": "NetworkPolcy"}, {"kind": "Service"}, DENY)
    with running(folder) as recorder:
        recorder.wait(POLICIES, "blue/deny")
        assert recorder.errors == []
    assert "all.yaml: ignored 1 NetworkPolcy, 2 Service (Namespace, Node, Pod, NetworkPolicy, Cluster" in caplog.text


def test_many_errors_are_told_as_their_number(folder: Folder) -> None:
    folder.write("web.yaml", *[policy(f"p{number}", podSelector=7) for number in range(9)])
    with running(folder) as recorder:
        reason = recorder.wait_error("web.yaml: ", "4 more")
        assert reason.count("podSelector") == 5


@pytest.mark.parametrize("name", ["pipe.yaml", "device.json", "folder.yaml", "dangling.yaml"])
def test_what_is_no_file_is_not_waited_for(folder: Folder, recorder: PolicyRecorder, name: str) -> None:
    path = folder.path / name
    if name.startswith("pipe"):
        os.mkfifo(path)
    elif name.startswith("device"):
        path.symlink_to("/dev/zero")
    elif name.startswith("folder"):
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    recorder.wait_error(str(path))
    folder.write("web.yaml", policy("other"))
    recorder.wait(POLICIES, "blue/other")
    if name.startswith("dangling"):
        (folder.path / "nowhere").write_text(json.dumps(policy("late")))
        recorder.wait(POLICIES, "blue/late", "blue/other")
    else:
        os.rename(path, folder.path / "aside")
    recorder.wait_recovered()


def test_a_file_that_cannot_be_read_for_now_is_read_again_without_a_change(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("web.yaml", DENY)
    failures = [OSError(errno.EIO, "Input/output error", "web.yaml")] * 2
    whole = policyfiles.read_file

    def read_file(path: str) -> Content:
        if failures:
            raise failures.pop()
        return whole(path)

    monkeypatch.setattr(policyfiles, "read_file", read_file)
    with running(folder) as recorder:
        recorder.wait_error("web.yaml: Input/output error")
        recorder.wait(POLICIES, "blue/deny")
        recorder.wait_recovered()


def test_files_have_limits(folder: Folder, recorder: PolicyRecorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policyfiles, "LARGEST_YAML", 1000)
    monkeypatch.setattr(policyfiles, "LARGEST_JSON", 2000)
    monkeypatch.setattr(policyfiles, "MOST_FILES", 3)
    folder.write("web.yaml", "#" * 1001)
    recorder.wait_error("web.yaml: larger than 1000 bytes (JSON may have 0 MB); keeping what was read before")
    folder.put("big.json", b" " * 2001)
    recorder.wait_error("big.json: larger than 2000 bytes")
    for number in range(2):
        folder.write(f"{number}.yaml", policy(f"p{number}"))
    recorder.wait_error(f"{folder.path}: more than 3 files")
    assert {"blue/deny"} <= (recorder.names(POLICIES) or set())


def test_a_folder_that_is_not_there_is_told_and_what_was_read_stays(folder: Folder, recorder: PolicyRecorder) -> None:
    aside = folder.path.with_name("aside")
    os.rename(folder.path, aside)
    recorder.wait_error(f"{folder.path}: No such file or directory")
    assert recorder.names(POLICIES) == {"blue/deny"}
    os.rename(aside, folder.path)
    recorder.wait_recovered()
    folder.write("web.yaml", policy("other"))
    recorder.wait(POLICIES, "blue/other")


def test_a_folder_that_comes_late_is_waited_for(folder: Folder) -> None:
    folder.path.rmdir()
    with running(folder) as recorder:
        recorder.wait_error(f"{folder.path}: No such file or directory")
        assert recorder.listed == set()
        folder.path.mkdir()
        recorder.wait(NAMESPACES, "default")
        recorder.wait_recovered()


def test_a_projected_volume_is_followed(folder: Folder) -> None:
    """Kubernetes replaces a hidden link to a hidden folder; the files are links through it."""
    for version in ("..1", "..2"):
        (folder.path / version).mkdir()
        (folder.path / version / "web.yaml").write_text(json.dumps(policy(f"of-{version[-1]}")))
    (folder.path / "..data").symlink_to("..1")
    (folder.path / "web.yaml").symlink_to("..data/web.yaml")
    with running(folder) as recorder:
        recorder.wait(POLICIES, "blue/of-1")
        (folder.path / "..new").symlink_to("..2")
        os.rename(folder.path / "..new", folder.path / "..data")
        recorder.wait(POLICIES, "blue/of-2")
        assert recorder.errors == []


def test_the_example_is_without_errors() -> None:
    content = policyfiles.read_file(os.path.join(os.path.dirname(__file__), "../../conf/policies.yaml"))
    assert [item.kind for item in content.items] == [
        *[NAMESPACES, REMOTE_PODS, REMOTE_PODS, POLICIES],
        *[CLUSTER_POLICIES] * 2,
    ]
    assert [item.error for item in content.items] == [""] * 6
    assert (content.errors, content.ignored) == ((), ())


def labels_of(recorder: PolicyRecorder, title: str) -> dict[str, str] | None:
    namespace, _, name = title.partition("/")
    pod = recorder.objects[LOCAL_PODS].get((namespace, name))
    return dict(pod.labels) if isinstance(pod, Pod) else None


def test_a_pod_that_is_attached_and_in_no_file_has_no_labels(folder: Folder) -> None:
    store = PolicyFiles(str(folder.path), "one")
    recorder = PolicyRecorder(store)
    store.note_attached(("shop", "early"), attached=True)
    store.start(recorder.record)
    try:
        recorder.wait(LOCAL_PODS, "shop/early")
        assert recorder.names(NAMESPACES) == {"default", "shop"}
        store.note_attached(("shop", "late"), attached=True)
        store.note_attached(("blue", "late"), attached=True)
        recorder.wait(LOCAL_PODS, "shop/early", "shop/late", "blue/late")
        assert recorder.names(NAMESPACES) == {"default", "shop", "blue"}

        pod = {"metadata": {"name": "late", "namespace": "shop", "labels": {"app": "db"}}, "spec": {}}
        folder.write("pods.yaml", {"apiVersion": "v1", "kind": "Pod", **pod})
        until(lambda: labels_of(recorder, "shop/late") == {"app": "db"}, "the file counts")
        assert labels_of(recorder, "shop/early") == {}
        store.note_attached(("shop", "late"), attached=False)
        store.note_attached(("shop", "early"), attached=False)
        recorder.wait(LOCAL_PODS, "shop/late", "blue/late")  # a pod of a file stays
        store.note_attached(("shop", "late"), attached=True)
        folder.remove("pods.yaml")
        until(lambda: labels_of(recorder, "shop/late") == {}, "it is attached still")
    finally:
        store.close()
