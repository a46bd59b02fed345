"""The etcd store against a scripted gateway: what a lying server may cost, and what of it people are told."""

from __future__ import annotations

import base64
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.model.events import Listed
from cni.agent.model.lease import Lease, Node, NodeAddress
from cni.agent.stores import http
from cni.agent.stores.etcd import client
from cni.agent.stores.etcd.options import EtcdOptions
from cni.agent.stores.etcd.store import EtcdStore
from cni.protocol.address import parse_ip, parse_mac
from tests.machine import until
from tests.recorder import StoreRecorder
from tests.unit.scripted import ScriptedApi, answer, chunk, head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.unit.scripted import Request

PREFIX = "/coreos.com/network"
NETWORK = {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}
HEADER = {"cluster_id": "7", "revision": "5"}
DEEP = b"[" * 200_000


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def node(number: int) -> Node:
    return Node("vxlan", 1, (NodeAddress(parse_ip(f"192.0.2.{number}"), parse_mac("0a:00:00:00:00:01")),))


def peer(number: int) -> dict[str, str]:
    """Returns another node's entry as etcd lists it."""
    data = {"VNI": 1, "VtepMAC": f"0a:00:00:00:00:{number:02x}"}
    value = {"PublicIP": f"192.0.2.{number}", "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
    key = f"{PREFIX}/subnets/10.5.{number}.0-24"
    return {"key": b64(key), "value": b64(json.dumps(value)), "create_revision": str(number), "mod_revision": "5"}


class Gateway(ScriptedApi):
    """etcd's JSON gateway with one other node; requests are told apart by their path."""

    def kind_of(self, request: Request) -> str:
        return request.path.removeprefix("/v3/")

    def respond(self, path: str, request: Request) -> Iterable[bytes]:
        if path == "watch":
            creates = [json.loads(line)["create_request"] for line in request.body.splitlines()]
            return self._watch([create["watch_id"] for create in creates])
        if path == "kv/range":
            key = base64.b64decode(request.json()["key"]).decode()
            value = {"key": b64(key), "value": b64(json.dumps(NETWORK)), "mod_revision": "3"}
            return answer({"header": HEADER, "kvs": [value if key.endswith("/config") else peer(2)]})
        done: dict[str, dict[str, object]] = {
            "lease/grant": {"ID": "9", "TTL": "86400"},
            "kv/txn": {"succeeded": True},
        }
        return answer({"header": HEADER, **done.get(path, {})})

    def _watch(self, numbers: list[str]) -> Iterator[bytes]:
        yield head(Transfer_Encoding="chunked")
        for number in numbers:
            message = {"result": {"header": HEADER, "watch_id": number, "created": True}}
            yield chunk(json.dumps(message).encode() + b"\n")
        self.watching += 1
        self.server.over.wait(30)
        yield b"0\r\n\r\n"


@pytest.fixture
def etcd() -> Iterator[Gateway]:
    gateway = Gateway()
    with gateway.server:
        yield gateway


def wait_served(recorder: StoreRecorder) -> None:
    until(lambda: recorder.held is not None and "10.5.2.0-24" in recorder.leases, "both leases are emitted")


@contextmanager
def running(etcd: Gateway, **changed: Any) -> Iterator[StoreRecorder]:
    store = EtcdStore(EtcdOptions((etcd.server.url,))._replace(**changed), ())
    recorder = StoreRecorder(store, node(1), dated=True)
    store.start(recorder.record)
    try:
        yield recorder
    finally:
        etcd.server.over.set()
        store.close()


def test_a_lease_is_taken_and_others_are_reported_with_when_they_were_made(etcd: Gateway) -> None:
    with running(etcd) as recorder:
        wait_served(recorder)
        until(lambda: etcd.watching, "it watches")
    two = recorder.leases["10.5.2.0-24"]
    assert isinstance(two, Lease)
    assert two.created == 2
    assert recorder.errors == []


def test_leases_are_listed_once_at_the_start(etcd: Gateway) -> None:
    """The watch begins where the list of which the own lease was chosen ends."""
    with running(etcd) as recorder:
        wait_served(recorder)
        until(lambda: etcd.watching, "it watches")
    ranges = [request.json() for request in etcd.server.requests if request.path == "/v3/kv/range"]
    assert len([each for each in ranges if "range_end" in each]) == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (answer(b"<html>a proxy</html>"), "unexpected response (not an etcd v3 gateway)"),
        (answer(b"null"), "unexpected response (not an etcd v3 gateway)"),
        (answer(b""), "unexpected response (not an etcd v3 gateway)"),
        (answer(DEEP), "unexpected response (not an etcd v3 gateway)"),
        (answer({"kvs": []}), "unexpected response (not an etcd v3 gateway)"),
        (answer({"header": {"revision": "x"}}), "unexpected response (not an etcd v3 gateway)"),
        (answer({"header": {"revision": {}}}), "unexpected response (not an etcd v3 gateway)"),
        (answer({"header": HEADER, "kvs": 7}), "unexpected response (not an etcd v3 gateway)"),
        (answer({"header": HEADER, "kvs": [7]}), "unexpected response (not an etcd v3 gateway)"),
        (answer({"header": HEADER, "kvs": [{"key": "a"}]}), "unexpected response (not an etcd v3 gateway)"),
        (
            answer({"header": HEADER, "kvs": [{"key": "YQ==", "lease": 1e999}]}),
            "unexpected response (not an etcd v3 gateway)",
        ),
        (answer(b"elsewhere", 302, Location="http://user:secret@elsewhere/"), "302 Found: elsewhere"),
        (answer({"error": "etcdserver: no leader"}, 503), "no leader"),
        (answer(DEEP, 500), "500 Internal Server Error"),
        (answer({"error": {}}, 400), "400 Bad Request"),
        ([head(Content_Length="100"), b"{"], "etcd at"),
        ([b"nonsense\r\n\r\n"], "etcd at"),
    ],
)
def test_a_fault_of_the_server_is_reported_in_words_and_over_when_it_is(
    etcd: Gateway, error: list[bytes], text: str
) -> None:
    etcd.fail("kv/range", error)
    with running(etcd) as recorder:
        reason = recorder.wait_error(text)
        wait_served(recorder)
    for word in ("Error", "Exception", "Traceback", "object at", "secret", "defect"):
        assert word not in reason.replace("Internal Server Error", "")


@pytest.mark.parametrize("path", ["lease/grant", "kv/txn", "lease/timetolive"])
@pytest.mark.parametrize("nonsense", [b"[]", b'{"header": {}, "ID": [], "TTL": {}, "responses": 7}'])
def test_nonsense_where_a_lease_is_asked_for_is_reported_as_that(etcd: Gateway, path: str, nonsense: bytes) -> None:
    etcd.fail(path, answer(nonsense))
    with running(etcd) as recorder:
        wait_served(recorder)
    assert all("defect" not in reason for reason in recorder.errors)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        DEEP,
        b"7",
        b'{"result": 7}',
        b'{"result": {"watch_id": "2", "events": [{}]}}',
        b'{"result": {"watch_id": "2", "events": [{"kv": {"mod_revision": "99"}}]}}',
        b'{"error": {"message": "etcdserver: permission denied"}}',
        b'{"result": {"watch_id": "99", "created": true}}',
    ],
)
def test_a_watch_of_nonsense_is_begun_again(etcd: Gateway, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    etcd.fail("watch", *[[head(Transfer_Encoding="chunked"), chunk(line + b"\n")] for _ in range(2)])
    with running(etcd) as recorder:
        wait_served(recorder)
        until(lambda: etcd.watching, "it watches")
    assert all("defect" not in reason for reason in [*recorder.errors, caplog.text])
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("path", ["kv/range", "lease/grant", "kv/txn", "watch"])
def test_where_one_endpoint_lies_the_next_is_asked(etcd: Gateway, path: str) -> None:
    liar = Gateway()
    liar.fail(path, *[answer(b"<html>a proxy</html>")] * 1000)
    with liar.server, running(etcd, endpoints=(liar.server.url, etcd.server.url)) as recorder:
        wait_served(recorder)
        until(lambda: etcd.watching or liar.watching, "it watches")
        liar.server.over.set()
    assert path in liar.kinds()


def test_a_server_that_asks_for_time_gets_it(etcd: Gateway, pauses: list[float]) -> None:
    etcd.fail("kv/range", answer({"error": "slow down"}, 429, Retry_After="2"))
    with running(etcd) as recorder:
        wait_served(recorder)
    assert 2.0 in pauses


@pytest.mark.usefixtures("pauses")
def test_a_lease_that_cannot_be_kept_is_an_error_that_no_list_hides(etcd: Gateway) -> None:
    with running(etcd) as recorder:
        wait_served(recorder)
        etcd.fail("kv/txn", *[answer({"error": "etcdserver: permission denied"}, 403)] * 1000)
        recorder.store.register(node(7))  # lists again
        recorder.wait_error("permission denied")
        until(lambda: len(recorder.of(Listed)) == 2, "all are listed again")
        assert "permission denied" in recorder.failure
        etcd.script.clear()
        until(lambda: not recorder.failure, "it has recovered")


@pytest.mark.parametrize(
    ("last", "text"), [("10.5.9.0-24", "the same keys again"), ("", "or an empty page")], ids=["repeated", "empty"]
)
def test_pages_without_end_are_given_up(etcd: Gateway, last: str, text: str) -> None:
    keys = [{"key": b64(f"{PREFIX}/subnets/{last}")}] if last else []
    page = answer({"header": HEADER, "more": True, "kvs": keys})
    config = {"key": b64("config"), "value": b64(json.dumps(NETWORK))}
    with running(etcd) as recorder:
        wait_served(recorder)
        etcd.fail("kv/range", answer({"header": HEADER, "kvs": [config]}), page, page)
        recorder.store.register(node(7))  # lists again
        recorder.wait_error(text)


def test_a_list_is_bounded(etcd: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_KEYS", 1)
    config = answer({"header": HEADER, "kvs": [{"key": b64("config"), "value": b64(json.dumps(NETWORK))}]})
    pages = [answer({"header": HEADER, "more": True, "kvs": [peer(3), peer(4)]}) for _ in range(2)]
    etcd.fail("kv/range", config, *pages)
    with running(etcd) as recorder:
        recorder.wait_error("etcd lists more than 1 keys")
        wait_served(recorder)


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_is_given_up(etcd: Gateway, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(http, "LARGEST", 4 << 20)
    etcd.fail("kv/range", etcd.endless(head(status), b" " * 65536))
    etcd.fail("watch", etcd.endless(head(), b"x" * 65536))
    with running(etcd) as recorder:
        recorder.wait_error("response larger than 4 MB")
        wait_served(recorder)
        until(lambda: etcd.watching, "it watches")


@pytest.mark.parametrize("start", [[head(), b" "], [b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"], [b"H"]])
def test_an_answer_that_trickles_is_given_up(
    etcd: Gateway, monkeypatch: pytest.MonkeyPatch, start: list[bytes]
) -> None:
    monkeypatch.setattr(http, "WHOLE_SECONDS", 0.5)
    etcd.fail("kv/range", etcd.endless(*start, pause=0.05))
    with running(etcd) as recorder:
        recorder.wait_error("no complete response within 0.5 s")
        wait_served(recorder)


@pytest.mark.parametrize("name", ["cafile", "certfile", "keyfile"])
def test_no_certificate_that_is_no_file_is_waited_for(etcd: Gateway, tmp_path: Path, name: str) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with running(etcd, endpoints=("https://127.0.0.1:1",), **{name: str(path)}) as recorder:
        recorder.wait_error(f"TLS files of etcd ({path}): not a regular file")
