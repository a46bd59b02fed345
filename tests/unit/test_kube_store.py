"""The Kubernetes store against a scripted API: what faults of a server, or its lies, make of a node's lease."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import ssl
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from urllib3 import HTTPResponse

from cni.agent.model.lease import Node, NodeAddress
from cni.agent.stores import http
from cni.agent.stores.kube import client as kubeapi
from cni.agent.stores.kube import watch
from cni.agent.stores.kube.options import KubeOptions
from cni.agent.stores.kube.store import KubeStore
from cni.protocol.address import parse_ip, parse_mac
from tests.machine import until
from tests.recorder import StoreRecorder
from tests.unit.kube_api import PREFIX, KubeApi, rejection
from tests.unit.scripted import Server, answer, chunk, head

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


MAC = "0a:00:00:00:00:0{}"
NODE = Node("vxlan", 1, (NodeAddress(parse_ip("192.0.2.1"), parse_mac(MAC.format(1))),))
NETWORK = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}
DEEP = b"[" * 200_000


@pytest.fixture
def api() -> Iterator[KubeApi]:
    scripted = KubeApi()
    scripted.put("one", 1)
    scripted.put("two", 2, mac=MAC.format(2))
    with scripted.server:
        yield scripted


@contextmanager
def running(api: KubeApi, folder: Path, **changed: Any) -> Iterator[StoreRecorder]:
    (folder / "net-conf.json").write_text(json.dumps(NETWORK))
    options = KubeOptions("one", ("", ""), api.server.url, "", "", PREFIX, str(folder / "net-conf.json"), True)
    store = KubeStore(options._replace(**changed))
    recorder = StoreRecorder(store, NODE, dated=True)
    store.start(recorder.record)
    try:
        yield recorder
    finally:
        api.server.over.set()
        store.close()


@pytest.fixture
def recorder(api: KubeApi, tmp_path: Path) -> Iterator[StoreRecorder]:
    with running(api, tmp_path) as running_store:
        running_store.wait_leases("two")
        until(lambda: api.is_watched, "it watches")
        yield running_store


def test_the_own_lease_is_published_and_others_are_followed(api: KubeApi, recorder: StoreRecorder) -> None:
    assert recorder.held is not None
    assert api.nodes["one"]["metadata"]["annotations"][PREFIX + "public-ip"] == "192.0.2.1"
    api.put("three", 3, mac=MAC.format(3))
    recorder.wait_leases("two", "three")
    api.delete("two")
    recorder.wait_leases("three")
    assert recorder.errors == []


def test_a_pod_is_asked_for_its_node(api: KubeApi, tmp_path: Path) -> None:
    with running(api, tmp_path, node_name="", pod=("podwire-system", "podwire-x")) as recorder:
        recorder.wait_leases("two")
    assert "/api/v1/namespaces/podwire-system/pods/podwire-x" in [request.path for request in api.server.requests]


def test_a_name_that_kubernetes_does_not_have_is_reported_and_no_other_node_taken(api: KubeApi, tmp_path: Path) -> None:
    with running(api, tmp_path, node_name="three") as recorder:
        assert recorder.wait_error("three") == (
            'Kubernetes has no node "three": it is not registered yet, or --node-name is wrong'
        )
        assert recorder.held is None
        api.put("three", 3)
        until(
            lambda: recorder.held is not None and recorder.held.lease.subnets[0].text == "10.244.3.0/24",
            "it is waited for",
        )
    assert not any(request.method == "PATCH" and "/three/" not in request.path for request in api.server.requests)


def authorizations(api: KubeApi) -> list[str]:
    return [request.headers["authorization"] for request in api.server.requests]


def test_credentials_that_the_server_knows_no_more_are_read_anew(api: KubeApi, tmp_path: Path) -> None:
    config = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "clusters": [{"name": "it", "cluster": {"server": api.server.url}}],
        "users": [{"name": "it", "user": {"tokenFile": "token"}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    (tmp_path / "token").write_text("old\n")
    api.fail("list", *[rejection(401, "Unauthorized")] * 1000)
    with running(api, tmp_path, server="", kubeconfig=str(tmp_path / "kubeconfig")) as recorder:
        recorder.wait_error("list nodes: 401 Unauthorized (invalid token or certificate)")
        (tmp_path / "token").write_text("new\n")
        until(lambda: "Bearer new" in authorizations(api), "the new token is sent")
        api.script["list"].clear()
        recorder.wait_leases("two")
    tokens = authorizations(api)
    assert (tokens[0], tokens[-1]) == ("Bearer old", "Bearer new")
    assert not any("old" in reason or "new" in reason for reason in recorder.errors)


def test_a_server_of_tls_is_trusted_by_its_certificate_alone(api: KubeApi, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("absent: openssl")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=api"
    files = ["-keyout", "key.pem", "-out", "ca.pem", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *files], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    api.server = Server(api.answer, context)
    cluster = {"server": api.server.url, "certificate-authority": "ca.pem"}
    config: dict[str, Any] = {
        "current-context": "it",
        "contexts": [{"name": "it", "context": {"cluster": "it"}}],
        "clusters": [{"name": "it", "cluster": cluster}],
    }
    path = tmp_path / "kubeconfig"
    with api.server:
        path.write_text(json.dumps(config))
        with running(api, tmp_path, server="", kubeconfig=str(path)) as recorder:
            recorder.wait_leases("two")
        api.server.over.clear()
        del cluster["certificate-authority"]
        path.write_text(json.dumps(config))
        with running(api, tmp_path, server="", kubeconfig=str(path)) as recorder:
            assert "certificate verify failed" in recorder.wait_error("list nodes: ")


def test_kubernetes_is_notified_that_pods_can_be_attached(api: KubeApi, recorder: StoreRecorder) -> None:
    recorder.store.ready()
    (condition,) = until(lambda: api.nodes["one"]["status"].get("conditions"), "the condition is set")
    assert (condition["type"], condition["status"]) == ("NetworkUnavailable", "False")


def test_a_node_that_is_not_ready_and_one_that_is_newer_are_reported_as_that(
    api: KubeApi, recorder: StoreRecorder
) -> None:
    api.put("three", 3, mac=MAC.format(3), creationTimestamp="2026-01-01T00:00:00Z")
    api.store({**api.nodes["two"], "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})

    def is_told() -> bool:
        two, three = recorder.leases.get("two"), recorder.leases.get("three")
        return bool(two and three and not isinstance(two, str) and not isinstance(three, str)
                    and not two.lives and three.lives and three.created > two.created)  # fmt: skip

    until(is_told, "both are told")


def test_thousands_of_nodes_are_listed_page_by_page(api: KubeApi, tmp_path: Path) -> None:
    for number in range(3, 250):
        api.put(f"n{number}", number, mac="0a:00:00:00:00:77")
    with running(api, tmp_path) as recorder:
        until(lambda: len(recorder.leases) == 248, "all are listed")
    assert api.kinds().count("list") >= 3


def test_a_compressed_list_is_read(api: KubeApi, tmp_path: Path) -> None:
    """The API server compresses answers of more than 128 KiB, in chunks."""
    items = [api.nodes["one"], api.nodes["two"]]
    page = gzip.compress(
        json.dumps({"kind": "NodeList", "metadata": {"resourceVersion": "9"}, "items": items}).encode()
    )
    pieces = [chunk(page[start : start + 50]) for start in range(0, len(page), 50)]
    api.fail("list", [head(Transfer_Encoding="chunked", Content_Encoding="gzip"), *pieces, b"0\r\n\r\n"])
    with running(api, tmp_path) as recorder:
        recorder.wait_leases("two")
    assert recorder.errors == []
    assert api.kinds().count("list") == 1
    assert api.server.requests[0].headers["accept-encoding"] == "gzip"


def test_a_bookmark_moves_the_place_that_is_gone_on_from(api: KubeApi, recorder: StoreRecorder) -> None:
    api.bookmark()
    api.put("three", 3, mac=MAC.format(3))
    recorder.wait_leases("two", "three")
    assert api.kinds().count("list") == 1


def test_a_place_that_the_server_has_forgotten_is_listed_anew(api: KubeApi, recorder: StoreRecorder) -> None:
    api.fail("watch", rejection(410, "too old resource version"))
    with_end = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
    api.put("three", 3, mac=MAC.format(3))
    api.send(with_end)
    recorder.wait_leases("two", "three")
    until(lambda: api.kinds().count("list") >= 2, "all are listed again")
    assert recorder.errors == []


@pytest.mark.parametrize(
    ("error", "texts"),
    [
        (rejection(401, "Unauthorized"), ["list nodes: 401 Unauthorized (invalid token or certificate)"]),
        (rejection(403, 'nodes is forbidden: User "x"'), ["list nodes: 403 Forbidden: nodes is forbidden"]),
        (rejection(404, "page not found"), ["list nodes: 404 Not Found: page not found"]),
        (
            rejection(500, "etcdserver: leader changed"),
            ["list nodes: 500 Internal Server Error: etcdserver: leader changed"],
        ),
        (answer(b"<html>a proxy</html>"), ["unexpected response (not the Kubernetes API)"]),
        (answer(b"null"), ["unexpected response (not the Kubernetes API)"]),
        (answer(DEEP), ["unexpected response (not the Kubernetes API)"]),
        (answer({"kind": "NodeList"}), ["nodes: an object has no metadata.resourceVersion"]),
        (
            answer({"kind": "NodeList", "metadata": [], "items": 7}),
            ["nodes: an object has no metadata.resourceVersion"],
        ),
        (answer({"kind": "NodeList", "metadata": {"resourceVersion": "9"}}), ["list nodes: response without items"]),
        (
            answer({"kind": "NodeList", "metadata": {"resourceVersion": "9"}, "items": [7]}),
            ["nodes: an object has no metadata.name"],
        ),
        (
            answer({"kind": "x", "metadata": {"resourceVersion": "9"}, "items": [{"metadata": {}}]}),
            ["nodes: an object has no metadata.name"],
        ),
        (answer(b"moved", 301, Location="http://user:secret@elsewhere/"), ["list nodes: 301 Moved Permanently"]),
        ([head(Content_Length="100"), b"{"], ["list nodes: "]),
        ([head(Transfer_Encoding="chunked"), b"zz\r\n"], ["list nodes: "]),
        ([b"nonsense\r\n\r\n"], ["list nodes: "]),
        ([], ["list nodes: "]),
    ],
)
def test_a_fault_of_the_server_is_reported_in_words_and_over_when_it_is(
    api: KubeApi, tmp_path: Path, error: list[bytes], texts: list[str]
) -> None:
    api.fail("list", *[error] * 4)  # one is tried again with other credentials; the first in vain is not told
    with running(api, tmp_path) as recorder:
        reason = recorder.wait_error(*texts)
        recorder.wait_leases("two")
    for word in ("Error", "Exception", "Traceback", "object at", "secret", "('"):
        assert word not in reason.replace("Internal Server Error", "")


def test_one_node_of_nonsense_harms_no_other(api: KubeApi, tmp_path: Path) -> None:
    annotations = {PREFIX + "kube-subnet-manager": "true"}
    nonsense: list[dict[str, Any]] = [
        {"metadata": {"name": "a", "annotations": 7}},
        {"metadata": {"name": "b", "annotations": annotations}, "spec": None},
        {"metadata": {"name": "c", "annotations": annotations}, "spec": {"podCIDRs": [[]]}},
        {"metadata": {"name": "d", "annotations": annotations}, "spec": {"podCIDRs": 7}, "status": 9},
    ]
    for node in nonsense:
        api.store(node)
    with running(api, tmp_path) as recorder:
        until(lambda: "two" in recorder.leases, "the good one is listed")
        api.put("three", 3, mac=MAC.format(3))
        until(lambda: "three" in recorder.leases, "it goes on")
        assert recorder.errors == []
        assert all(isinstance(recorder.leases.get(name), (str, type(None))) for name in "abcd")


@pytest.mark.parametrize(
    "end",
    [
        [head(Transfer_Encoding="chunked"), chunk(b"nonsense\n")],
        [head(Transfer_Encoding="chunked"), chunk(DEEP + b"\n")],
        [head(Transfer_Encoding="chunked"), chunk(b'{"type": "ADDED"}\n')],
        [head(Transfer_Encoding="chunked"), chunk(b'{"type": "ADDED", "object": {"metadata": {}}}\n')],
        [head(Transfer_Encoding="chunked"), chunk(b'{"type": "ERROR", "object": {"code": {}}}\n')],
        [head(Transfer_Encoding="chunked"), b"100\r\n{"],
        [head(Transfer_Encoding="chunked"), b"0\r\n\r\n"],
        [head(), b""],
        rejection(500, "overloaded"),
    ],
)
def test_a_watch_that_ends_in_any_way_is_taken_up_again(api: KubeApi, tmp_path: Path, end: list[bytes]) -> None:
    api.fail("watch", end)
    with running(api, tmp_path) as recorder:
        until(lambda: api.is_watched, "it watches")
        api.put("three", 3, mac=MAC.format(3))
        recorder.wait_leases("two", "three")
        assert recorder.errors == []


def test_a_watch_names_its_own_silence(
    api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kubeapi, "OVERTIME", 0.2)
    monkeypatch.setattr(watch, "WATCH_SECONDS", (1, 1))
    caplog.set_level("DEBUG", "podwired.kubernetes")

    def silent() -> Iterator[bytes]:
        yield head(Transfer_Encoding="chunked")
        api.server.over.wait(20)

    api.fail("watch", silent())
    with running(api, tmp_path):
        until(lambda: "watch nodes ended: no response within 1.2 s" in caplog.text, "it is told")


@pytest.mark.parametrize(("wait", "seconds"), [("2", 2.0), ("Thu, 31 Dec 2099 23:59:59 GMT", 60.0)])
def test_a_server_that_asks_for_time_gets_it(
    api: KubeApi, tmp_path: Path, pauses: list[float], wait: str, seconds: float
) -> None:
    api.fail("list", rejection(429, "too many requests", Retry_After=wait))
    with running(api, tmp_path) as recorder:
        recorder.wait_leases("two")
    assert seconds in pauses
    assert api.kinds().count("list") == 2


def test_a_write_that_is_refused_for_now_is_tried_when_the_server_wants_it(
    api: KubeApi, tmp_path: Path, pauses: list[float]
) -> None:
    api.fail("patch", rejection(503, "apiserver is shutting down", Retry_After="2"), rejection(409, "conflict"))
    with running(api, tmp_path) as recorder:
        recorder.wait_error("shutting down")
        recorder.wait_error("409 Conflict: conflict")
        recorder.wait_leases("two")
    assert api.kinds().count("patch") == 3
    assert 2.0 in pauses


@pytest.mark.parametrize("text", ["-5", "soon", "1e9", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT", ""])
def test_no_server_decides_how_long_is_waited_without_bounds(text: str) -> None:
    response = HTTPResponse(headers={"Retry-After": text})
    assert 0 <= http.retry_after(response) <= http.LONGEST_WAIT


def test_an_answer_without_end_is_given_up(api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGEST", 4 << 20)
    api.fail("list", *[api.endless(head(), b" " * 65536) for _ in range(6)])  # twice, for pages of 100, 12 and 1
    api.fail("watch", api.endless(head(), b"x" * 65536))
    with running(api, tmp_path) as recorder:
        recorder.wait_error("response larger than 4 MB")
        recorder.wait_leases("two")
        until(lambda: api.is_watched, "it watches")


@pytest.mark.parametrize("start", [[head(), b" "], [b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"], [b"H"]])
def test_an_answer_that_trickles_is_given_up(
    api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: list[bytes]
) -> None:
    monkeypatch.setattr(http, "WHOLE_SECONDS", 0.5)
    api.fail("list", *[api.endless(*start, pause=0.05) for _ in range(2)])
    with running(api, tmp_path) as recorder:
        recorder.wait_error("list nodes: no complete response within 0.5 s")
        recorder.wait_leases("two")


def test_a_list_that_goes_on_for_ever_is_given_up(
    api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeapi, "MOST_PAGES", 5)
    page = answer({"kind": "NodeList", "metadata": {"resourceVersion": "5", "continue": "x"}, "items": []})
    api.fail("list", *[page] * 10)
    with running(api, tmp_path) as recorder:
        recorder.wait_error("list nodes: no end after 500 objects")
        recorder.wait_leases("two")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_no_file_that_is_none_is_waited_for(api: KubeApi, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kubeconfig"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with running(api, tmp_path, kubeconfig=str(path)) as recorder:
        recorder.wait_error(str(path), "not a regular file")


def test_threads_end_with_the_store(api: KubeApi, tmp_path: Path) -> None:
    with ExitStack() as end:
        recorder = end.enter_context(running(api, tmp_path))
        recorder.wait_leases("two")
    until(
        lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("kube-")],
        "the threads have ended",
    )
