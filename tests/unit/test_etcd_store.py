"""The etcd store against a scripted gateway: what a lying server may cost, and what of it people are told."""

from __future__ import annotations

import base64
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.model.events import Changed, Configured, Failed, Held, Listed
from cni.agent.model.lease import Lease, Node, NodeAddress
from cni.agent.stores import http
from cni.agent.stores.etcd import client
from cni.agent.stores.etcd.options import EtcdOptions
from cni.agent.stores.etcd.store import EtcdStore
from cni.protocol.address import parse_ip, parse_mac
from tests.machine import until
from tests.unit.scripted import Server, answer, chunk, head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cni.agent.model.events import StoreEvent
    from tests.unit.scripted import Request

PREFIX = "/coreos.com/network"
NODE = Node("vxlan", 1, (NodeAddress(parse_ip("192.0.2.1"), parse_mac("0a:00:00:00:00:01")),))
NETWORK = {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}
HEADER = {"cluster_id": "7", "revision": "5"}
DEEP = b"[" * 200_000


def b64(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def peer(number: int) -> dict[str, str]:
    """Returns another node's entry as etcd lists it."""
    data = {"VNI": 1, "VtepMAC": f"0a:00:00:00:00:{number:02x}"}
    value = {"PublicIP": f"192.0.2.{number}", "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
    key = f"{PREFIX}/subnets/10.5.{number}.0-24"
    return {"key": b64(key), "value": b64(json.dumps(value)), "create_revision": str(number), "mod_revision": "5"}


class Gateway:
    """etcd's JSON gateway with one other node; `script`: by path the faults of the next requests."""

    def __init__(self) -> None:
        self.script: dict[str, list[Iterable[bytes]]] = {}
        self.watching = 0
        self.server = Server(self._answer)

    def fail(self, path: str, *errors: Iterable[bytes]) -> None:
        self.script.setdefault(path, []).extend(errors)

    def asked(self, path: str) -> int:
        return sum(request.path == f"/v3/{path}" for request in self.server.requests)

    def _answer(self, request: Request) -> Iterable[bytes]:
        path = request.path.removeprefix("/v3/")
        if self.script.get(path):
            return self.script[path].pop(0)
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


class Told:
    def __init__(self, store: EtcdStore) -> None:
        self.store = store
        self.errors: list[str] = []
        self.held: Lease | None = None
        self.leases: dict[str, Lease | str] = {}

    def tell(self, news: StoreEvent) -> None:
        if isinstance(news, Failed):
            self.errors.append(news.why)
        elif isinstance(news, Configured):
            self.store.present(NODE)
        elif isinstance(news, Held):
            self.held = news.lease
        elif isinstance(news, Listed):
            self.leases = dict(news.leases)
        elif isinstance(news, Changed):
            self.leases |= {news.key: news.lease} if news.lease is not None else {}

    def wait_fault(self, *words: str) -> str:
        return until(lambda: next((one for one in self.errors if all(word in one for word in words)), ""), f"{words}")

    def wait_served(self) -> None:
        until(lambda: self.held is not None and "10.5.2.0-24" in self.leases, "the own lease and the other are told")


@pytest.fixture
def etcd() -> Iterator[Gateway]:
    found = Gateway()
    with found.server:
        yield found


@contextmanager
def running(etcd: Gateway, **changed: Any) -> Iterator[Told]:
    store = EtcdStore(EtcdOptions((etcd.server.url,))._replace(**changed), ())
    told = Told(store)
    store.start(told.tell)
    try:
        yield told
    finally:
        etcd.server.over.set()
        store.close()


def test_a_lease_is_taken_and_others_are_told_with_when_they_were_made(etcd: Gateway) -> None:
    with running(etcd) as told:
        told.wait_served()
        until(lambda: etcd.watching, "it watches")
    two = told.leases["10.5.2.0-24"]
    assert isinstance(two, Lease)
    assert two.created == 2
    assert told.errors == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answer(b"<html>a proxy</html>"), "what it answers is not etcd's"),
        (answer(b"null"), "what it answers is not etcd's"),
        (answer(b""), "what it answers is not etcd's"),
        (answer(DEEP), "what it answers is not etcd's"),
        (answer({"kvs": []}), "what it answers is not etcd's"),
        (answer({"header": {"revision": "x"}}), "what it answers is not etcd's"),
        (answer({"header": {"revision": {}}}), "what it answers is not etcd's"),
        (answer({"header": HEADER, "kvs": 7}), "what it answers is not etcd's"),
        (answer({"header": HEADER, "kvs": [7]}), "what it answers is not etcd's"),
        (answer({"header": HEADER, "kvs": [{"key": "a"}]}), "what it answers is not etcd's"),
        (answer({"header": HEADER, "kvs": [{"key": "YQ==", "lease": 1e999}]}), "what it answers is not etcd's"),
        (answer(b"elsewhere", 302, Location="http://user:secret@elsewhere/"), "HTTP 302: elsewhere"),
        (answer({"error": "etcdserver: no leader"}, 503), "no leader"),
        (answer(DEEP, 500), "HTTP 500"),
        (answer({"error": {}}, 400), "HTTP 400"),
        ([head(Content_Length="100"), b"{"], "etcd at"),
        ([b"nonsense\r\n\r\n"], "etcd at"),
    ],
)
def test_a_fault_of_the_server_is_told_in_words_and_over_when_it_is(
    etcd: Gateway, error: list[bytes], words: str
) -> None:
    etcd.fail("kv/range", error)
    with running(etcd) as told:
        why = told.wait_fault(words)
        told.wait_served()
    for word in ("Error", "Exception", "Traceback", "object at", "secret", "defect"):
        assert word not in why


@pytest.mark.parametrize("path", ["lease/grant", "kv/txn", "lease/timetolive"])
@pytest.mark.parametrize("nonsense", [b"[]", b'{"header": {}, "ID": [], "TTL": {}, "responses": 7}'])
def test_nonsense_where_a_lease_is_asked_for_is_told_as_that(etcd: Gateway, path: str, nonsense: bytes) -> None:
    etcd.fail(path, answer(nonsense))
    with running(etcd) as told:
        told.wait_served()
    assert all("defect" not in why for why in told.errors)


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
    with running(etcd) as told:
        told.wait_served()
        until(lambda: etcd.watching, "it watches")
    assert all("defect" not in why for why in [*told.errors, caplog.text])
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("path", ["kv/range", "lease/grant", "kv/txn", "watch"])
def test_where_one_endpoint_lies_the_next_is_asked(etcd: Gateway, path: str) -> None:
    liar = Gateway()
    liar.fail(path, *[answer(b"<html>a proxy</html>")] * 1000)
    with liar.server, running(etcd, endpoints=(liar.server.url, etcd.server.url)) as told:
        told.wait_served()
        until(lambda: etcd.watching or liar.watching, "it watches")
        liar.server.over.set()


def test_a_server_that_asks_for_time_gets_it(etcd: Gateway) -> None:
    etcd.fail("kv/range", answer({"error": "slow down"}, 429, Retry_After="2"))
    began = time.monotonic()
    with running(etcd) as told:
        told.wait_served()
    assert time.monotonic() - began > 1.9


@pytest.mark.parametrize(
    ("last", "words"), [("10.5.9.0-24", "the same keys again"), ("", "or no key at all")], ids=["repeated", "empty"]
)
def test_pages_without_end_are_given_up(etcd: Gateway, last: str, words: str) -> None:
    keys = [{"key": b64(f"{PREFIX}/subnets/{last}")}] if last else []
    page = answer({"header": HEADER, "more": True, "kvs": keys})
    config = {"key": b64("config"), "value": b64(json.dumps(NETWORK))}
    with running(etcd) as told:
        told.wait_served()
        etcd.fail("kv/range", answer({"header": HEADER, "kvs": [config]}), page, page)
        told.store.present(
            NODE._replace(addresses=(NodeAddress(parse_ip("192.0.2.7"), NODE.addresses[0].vtep_mac),))
        )  # lists anew
        told.wait_fault(words)


def test_a_list_is_bounded(etcd: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOST_KEYS", 1)
    config = answer({"header": HEADER, "kvs": [{"key": b64("config"), "value": b64(json.dumps(NETWORK))}]})
    pages = [answer({"header": HEADER, "more": True, "kvs": [peer(3), peer(4)]}) for _ in range(2)]
    etcd.fail("kv/range", config, *pages)
    with running(etcd) as told:
        told.wait_fault("etcd lists more than 1 keys")
        told.wait_served()


def endless(etcd: Gateway, *pieces: bytes, pause: float = 0.0) -> Iterator[bytes]:
    yield from pieces[:-1]
    while not etcd.server.over.is_set():
        yield pieces[-1]
        etcd.server.over.wait(pause)


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_end_is_given_up(etcd: Gateway, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(http, "LARGEST", 4 << 20)
    etcd.fail("kv/range", endless(etcd, head(status), b" " * 65536))
    etcd.fail("watch", endless(etcd, head(), b"x" * 65536))
    with running(etcd) as told:
        told.wait_fault("an answer of more than 4 MB")
        told.wait_served()
        until(lambda: etcd.watching, "it watches")


@pytest.mark.parametrize("start", [[head(), b" "], [b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"], [b"H"]])
def test_an_answer_that_trickles_is_given_up(
    etcd: Gateway, monkeypatch: pytest.MonkeyPatch, start: list[bytes]
) -> None:
    monkeypatch.setattr(http, "WHOLE_SECONDS", 0.5)
    etcd.fail("kv/range", endless(etcd, *start, pause=0.05))
    with running(etcd) as told:
        told.wait_fault("no whole answer within 0.5 s")
        told.wait_served()


@pytest.mark.parametrize("name", ["cafile", "certfile", "keyfile"])
def test_no_certificate_that_is_no_file_is_waited_for(etcd: Gateway, tmp_path: Path, name: str) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with running(etcd, endpoints=("https://127.0.0.1:1",), **{name: str(path)}) as told:
        told.wait_fault(f"the files for TLS ({path}): not a regular file")
