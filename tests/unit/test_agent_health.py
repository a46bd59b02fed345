"""Tests podwired's answers over HTTP, and its notifications of the service manager."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import suppress
from errno import EMFILE
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.metrics import Metrics
from cni.agent.runtime import server
from cni.agent.runtime.health import Health, notify
from cni.agent.runtime.healthserver import HealthServer
from cni.protocol.errors import IOFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Listener:
    """A listening socket whose accept is another's."""

    def __init__(self, listener: socket.socket, accept: Callable[[socket.socket], object]) -> None:
        self._listener, self._accept = listener, accept

    def accept(self) -> object:
        return self._accept(self._listener)

    def fileno(self) -> int:
        return self._listener.fileno()

    def close(self) -> None:
        self._listener.close()


class Served:
    """Health behind a port of this machine's own, served by a thread that ends with the test."""

    def __init__(self, ip: str) -> None:
        self.ip, self.metrics = ip, Metrics()
        self.health = Health(self.metrics)
        self.server = HealthServer(ip, 0, self.health.answer)
        self.port = self.server.port
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.ip, self.port), timeout=30)

    def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        connection = http.client.HTTPConnection(self.ip, self.port, timeout=30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()

    def end(self) -> None:
        self.server.end()
        self._thread.join()


@pytest.fixture(params=["127.0.0.1", "::1"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    try:
        server = Served(request.param)
    except OSError as error:
        pytest.skip(f"{request.param} cannot be had here: {error}")
    yield server
    server.end()


def test_it_is_alive_before_it_is_ready(served: Served) -> None:
    assert served.ask("/healthz")[::2] == (200, "podwired is running\n")
    assert served.ask("/readyz")[::2] == (503, "podwired is not ready: pods cannot be attached yet, its log says why\n")
    served.health.error = ""
    assert served.ask("/readyz?verbose")[::2] == (200, "podwired is ready\n")
    served.health.error = "eth0 is gone"
    assert served.ask("/readyz")[::2] == (503, "podwired is not ready: eth0 is gone\n")
    served.health.policy_error = "NetworkPolicy: refused"
    assert served.ask("/readyz")[2] == "podwired is not ready: eth0 is gone; NetworkPolicy: refused\n"
    served.health.error = ""
    assert served.ask("/readyz")[::2] == (503, "podwired is not ready: NetworkPolicy: refused\n")


def test_it_tells_what_it_counts(served: Served) -> None:
    served.metrics.peers.set(7)
    served.metrics.errors.labels("store").inc()
    status, kind, text = served.ask("/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = text.splitlines()
    assert "podwired_peers 7.0" in lines
    assert 'podwired_errors_total{where="store"} 1.0' in lines
    assert all(line.startswith(("#", "podwired_", "process_")) for line in lines)


def test_another_path_or_method_is_told_so(served: Served) -> None:
    assert served.ask("/")[0] == 404
    assert "/, /api/v1/status, /healthz, /readyz and /metrics" in served.ask("/x")[2]
    assert served.ask("/healthz", "POST")[0] == 501


def test_head_has_the_length_and_no_body(served: Served) -> None:
    assert served.ask("/healthz", "HEAD") == (200, "text/plain; charset=utf-8", "")


@pytest.mark.parametrize(
    "request_bytes", [b"\x16\x03\x01nonsense\r\n\r\n", b"\r\n\r\n", b"GET\n\n", b"GET / \xff\r\n\r\n"]
)
def test_nonsense_is_answered_and_harms_no_other(served: Served, request_bytes: bytes) -> None:
    with served.connect() as strange:
        strange.sendall(request_bytes)
        assert strange.recv(12) == b"HTTP/1.1 400"
    assert served.ask("/healthz")[0] == 200


@pytest.mark.parametrize(
    "cut", [b"GET /%s", b"GET /?%s HTTP/1.1\r\n", b"GET /?%s HTTP/1.1\r\nHost: 127.0.0.1", b"GET / HTTP/1.1\r\nX: %s"]
)
def test_a_request_of_which_a_part_is_missing_is_refused(
    served: Served, cut: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part may be the Host header of a page that a foreign name led here, or the end of that."""
    monkeypatch.setattr(served.health, "answer", lambda *_: pytest.fail("it is answered"))
    whole = cut % (b"a" * (server.REQUEST_BYTES - len(cut) + 2))
    with served.connect() as caller:
        caller.sendall(whole)
        assert len(whole) == server.REQUEST_BYTES
        assert caller.recv(12) == b"HTTP/1.1 431"
    monkeypatch.undo()
    assert served.ask("/healthz")[0] == 200


def test_a_request_may_come_in_pieces(served: Served) -> None:
    with served.connect() as slow:
        for piece in (b"GET /hea", b"lthz HTTP/1.1\r\nHost: x\r", b"\n\r", b"\n"):
            slow.sendall(piece)
            assert served.ask("/healthz")[0] == 200
        assert slow.recv(12) == b"HTTP/1.1 200"


def test_callers_that_say_nothing_make_room_for_those_that_do(served: Served) -> None:
    """Everybody is served at once, with many more silent ones than there is room for."""
    held = [served.connect() for _ in range(3 * server.CONNECTIONS)]
    for connection in held[-10:]:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
    for path in ("/healthz", "/metrics", "/healthz"):
        assert served.ask(path)[0] == 200
    assert len(served.server._connections) <= server.CONNECTIONS
    assert held[0].recv(1) == b""  # the oldest was dropped
    held[-1].sendall(b"x\r\n\r\n")
    assert held[-1].recv(12) == b"HTTP/1.1 200"
    for connection in held:
        connection.close()


def test_a_caller_has_a_few_seconds_whatever_it_sends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SECONDS", 0.3)
    with served.connect() as silent, served.connect() as slow:
        with suppress(OSError):  # a reset or a broken pipe
            for _ in range(200):
                slow.sendall(b"G")
                time.sleep(0.05)
            pytest.fail("the connection stays")
        assert silent.recv(1) == b""


def test_without_descriptors_it_goes_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter([True, True, False])

    def accept(listener: socket.socket) -> tuple[socket.socket, object]:
        if next(refusals, False):
            raise OSError(EMFILE, "Too many open files")
        return socket.socket.accept(listener)

    listener = served.server._listener
    monkeypatch.setattr(served.server, "_listener", Listener(listener, accept))
    assert served.ask("/healthz")[0] == 200


def test_callers_are_not_told_of_anywhere(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.ask("/healthz")
    socket.create_connection((served.ip, served.port)).close()
    served.ask("/healthz")
    assert capfd.readouterr() == ("", "")


def test_an_address_that_is_taken_is_an_error(served: Served) -> None:
    with pytest.raises(IOFailure, match="in use"):
        Health(Metrics()).start(served.ip, served.port)


def test_it_is_served_from_a_thread_of_its_own() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Health(Metrics()).start("127.0.0.1", port)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
        caller.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert caller.recv(12) == b"HTTP/1.1 200"


def test_the_service_manager_is_notified_at_a_path_and_at_an_abstract_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, name in ((str(tmp_path / "notify"), str(tmp_path / "notify")), ("\0podwire-test", "@podwire-test")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            monkeypatch.setenv("NOTIFY_SOCKET", name)
            notify("READY=1")
            manager.settimeout(10)
            assert manager.recv(64) == b"READY=1"


@pytest.mark.parametrize("name", [None, ""])
def test_without_a_service_manager_nobody_is_notified(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if name is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket is opened"))
    notify("READY=1")


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody-listens", "no path"])
def test_a_service_manager_that_does_not_listen_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    class Refusing(socket.socket):
        def sendto(self, *arguments: Any) -> int:
            sent.append(arguments[-1])
            return super().sendto(*arguments)

    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(socket, "socket", Refusing)
    notify("READY=1")
    assert sent == [address.replace("@", "\0")]
