"""The status page and its JSON: who sees what, nothing that others write is markup, and it is made seldom."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.kept import KEPT_SECONDS, PAUSES
from cni.agent.logs import LoggedEvent
from cni.agent.metrics import Metrics
from cni.agent.model.lease import Endpoint, Lease
from cni.agent.runtime.health import Health
from cni.agent.runtime.healthserver import is_local, response
from cni.agent.status.document import document
from cni.agent.status.page import SHOWN, page
from cni.agent.status.rendered import Rendered
from cni.protocol.address import parse_ip, parse_net
from tests.unit.test_agent_status import snapshot

if TYPE_CHECKING:
    from cni.agent.status.snapshot import Snapshot

EVIL = "<script>alert(1)</script>\"'&"
MANY = 5000
VOID = {"meta"}


class Seen(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(content.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(seen: Snapshot, reasons: list[str] | None = None, events: Any = (), *, detailed: bool = True) -> Seen:
    return Seen(page(document(seen, reasons or [], events, detailed=detailed)))


def test_the_page_shows_the_node_its_peers_and_what_is_wrong() -> None:
    seen = shown(snapshot(), ["eth0 is down"], [LoggedEvent(2.0, "warning", "a peer went")])
    for text in (
        "node1: not ready", "eth0 is down", "10.5.0.0/16 by vxlan, VNI 1, UDP port 4789",
        "10.5.1.0/24 behind 192.0.2.1",
        "eth0 192.0.2.1/24, MTU 1500", "flannel.1, MTU 1450", "10.5.2.0/24", "192.0.2.3", "its subnet is another's",
        "a peer went", "1 unreachable", "last error 1970-01-01T00:00:01Z: gone",
    ):  # fmt: skip
        assert text in seen.text
    assert seen.text.index("10.5.4.0/24") < seen.text.index("10.5.2.0/24"), "the worst comes first"


def test_it_loads_nothing_and_runs_nothing() -> None:
    seen = shown(snapshot(), [EVIL], [LoggedEvent(2.0, "warning", EVIL)])
    assert set(seen.tags) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "div", "table", "thead", "tbody",
        "tr", "th", "td",
    }  # fmt: skip
    assert seen.attributes <= {"lang", "charset", "name", "content", "http-equiv", "class", "scope"}
    head = response(b"GET / HTTP/1.1\r\n\r\n", "", Health(Metrics()).answer).partition(b"\r\n\r\n")[0]
    assert b"Content-Security-Policy: default-src 'none'" in head


def test_what_others_write_is_text() -> None:
    peer = Lease((Endpoint(parse_net("10.5.7.0/24"), parse_ip("192.0.2.7")),), EVIL, name=EVIL)
    seen = snapshot(served={EVIL: peer}, refused={EVIL: EVIL})._replace(node=EVIL)
    content = page(document(seen, [EVIL], [LoggedEvent(2.0, EVIL, EVIL)]))
    assert b"<script" not in content
    assert Seen(content).text.count(EVIL) == 8


def test_with_many_peers_it_is_of_a_bounded_size_and_tells_how_many_are_left_out() -> None:
    peers = {
        str(number): Lease((Endpoint(parse_net(f"10.{number // 256}.{number % 256}.0/24"), parse_ip("192.0.2.7")),), "")
        for number in range(MANY)
    }
    refused = {str(number): "x" * 5000 for number in range(MANY)}
    content = page(document(snapshot(served=peers, refused=refused), [], []))
    assert len(content) < 200_000
    assert content.count(f"and {MANY - SHOWN} more".encode()) == 2


def test_without_details_neither_page_nor_json_has_a_name_or_an_address() -> None:
    seen = shown(snapshot(), detailed=False)
    assert seen.text.count("podwired: ready") == 1
    assert "loopback address alone" in seen.text
    for text in ("node1", "10.5.", "192.0.2.", "eth0", "gone"):
        assert text not in seen.text


class Documents:
    """Counts how often a document is made."""

    def __init__(self) -> None:
        self.made: list[bool] = []

    def document(self, *, detailed: bool) -> Any:
        self.made.append(detailed)
        return document(snapshot(), [], [], detailed=detailed)


def test_a_flood_of_requests_makes_one_document_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    documents = Documents()
    rendered = Rendered(documents)
    for _ in range(1000):
        rendered.page(detailed=False)
        rendered.json(detailed=True)
    assert documents.made == [False, True]
    now[0] += KEPT_SECONDS
    rendered.page(detailed=False)
    assert documents.made == [False, True, False]


def test_what_takes_long_is_made_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    class Slow(Documents):
        def document(self, *, detailed: bool) -> Any:
            now[0] += 2
            return super().document(detailed=detailed)

    documents = Slow()
    rendered = Rendered(documents)
    rendered.json(detailed=True)
    now[0] += 2 * PAUSES - 1
    rendered.json(detailed=True)
    assert len(documents.made) == 1
    now[0] += 2
    rendered.json(detailed=True)
    assert len(documents.made) == 2


@pytest.mark.parametrize(
    ("host", "header", "local"),
    [
        ("127.0.0.1", b"Host: 127.0.0.1:10264\r\n", True),
        ("127.0.0.1", b"", False),  # a browser names the host, and so do curl and the kubelet
        ("127.3.2.1", b"Host: localhost:10264\r\n", True),
        ("::1", b"host: [::1]:10264\r\n", True),
        ("::ffff:127.0.0.1", b"Host: 127.0.0.1\r\n", True),
        ("127.0.0.1", b"Host: attacker.example:10264\r\n", False),
        ("127.0.0.1", b"Host: localhost\r\nHost: attacker.example\r\n", False),
        ("127.0.0.1", b"Host: localhost\r\nHost: localhost\r\n", False),
        ("127.0.0.1", b"X: y\r\n\r\nHost: localhost\r\n", False),  # not in the head
        ("127.0.0.1", b"Host: [::1].attacker.example\r\n", False),
        ("127.0.0.1", b"Host: localhost:attacker.example\r\n", False),
        ("127.0.0.1", b"Host: \r\n", False),
        ("10.5.1.7", b"Host: localhost\r\n", False),
        ("::ffff:10.5.1.7", b"Host: localhost\r\n", False),
        ("::1:5", b"Host: localhost\r\n", False),
        ("::1%eth0", b"Host: localhost\r\n", False),
        ("fd00::1", b"Host: localhost\r\n", False),
        ("", b"Host: localhost\r\n", False),
    ],
)
def test_details_are_for_callers_at_the_nodes_loopback_address(host: str, header: bytes, *, local: bool) -> None:
    request = b"GET /api/v1/status HTTP/1.1\r\n" + header + b"\r\n"
    assert is_local(request, host) == local
    health = Health(Metrics())
    health.show(Documents())
    head, _, body = response(request, host, health.answer).partition(b"\r\n\r\n")
    assert b"Content-Type: application/json\r\n" in head
    assert json.loads(body)["detailed"] == local


def test_why_it_is_not_ready_is_told_to_all() -> None:
    """A probe anywhere has to say why it failed: /readyz, JSON and page agree on that."""
    health = Health(Metrics())
    health.error = "eth0 has lost 192.0.2.7"

    class Reasons:
        def document(self, *, detailed: bool) -> Any:
            return document(snapshot(), health.reasons, [], detailed=detailed)

    health.show(Reasons())
    assert b"eth0 has lost 192.0.2.7" in health.answer("/readyz")[2]
    assert json.loads(health.answer("/api/v1/status")[2])["reasons"] == ["eth0 has lost 192.0.2.7"]
    seen = Seen(health.answer("/")[2])
    assert "eth0 has lost 192.0.2.7" in seen.text
    assert "All else" in seen.text


def test_a_defect_is_an_answer_and_the_probes_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def document(self, *, detailed: bool) -> Any:
            raise KeyError(detailed)

    health = Health(Metrics())
    health.show(Broken())
    assert health.answer("/", True)[0] == 500
    assert "a defect of podwired (KeyError" in caplog.text
    assert health.answer("/healthz")[0] == 200
