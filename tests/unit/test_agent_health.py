"""What podwired answers over HTTP, and what it tells its service manager."""

from __future__ import annotations

import http.client
import socket
import threading
from socketserver import StreamRequestHandler
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("prometheus_client", reason="the agent's part (pip install podwire[agent]) counts by it")

from cni.agent.health import SILENT_SECONDS, Health, notify
from cni.agent.metrics import Metrics
from cni.spec.errors import InputOutput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Served:
    """Health behind a port of this machine's own."""

    def __init__(self, ip: str) -> None:
        self.ip, self.metrics = ip, Metrics()
        self.health = Health(self.metrics)
        self.health.start(ip, 0)
        assert self.health._server is not None
        self.server = self.health._server
        self.port: int = self.server.server_address[1]

    def ask(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        connection = http.client.HTTPConnection(self.ip, self.port, timeout=10)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
        finally:
            connection.close()

    def end(self) -> None:
        """The server looks up when somebody calls."""
        ending = threading.Thread(target=self.server.shutdown)
        ending.start()
        while ending.is_alive():
            socket.create_connection((self.ip, self.port)).close()
            ending.join(0.05)
        self.server.server_close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    try:
        found = Served(request.param)
    except OSError as error:
        pytest.skip(f"{request.param} cannot be had here: {error}")
    yield found
    found.end()


def test_it_is_alive_before_it_is_ready(served: Served) -> None:
    assert served.ask("/healthz")[::2] == (200, "podwired is running\n")
    assert served.ask("/readyz")[::2] == (503, "podwired is not ready yet, its log says why\n")
    served.health.ready = True
    assert served.ask("/readyz?verbose")[::2] == (200, "podwired is ready\n")
    served.health.ready = False
    assert served.ask("/readyz")[0] == 503


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
    assert "/healthz, /readyz and /metrics" in served.ask("/x")[2]
    assert served.ask("/healthz", "POST")[0] == 501


def test_a_caller_that_says_nothing_or_nonsense_harms_no_other(served: Served) -> None:
    assert isinstance(served.server.RequestHandlerClass, type)
    assert issubclass(served.server.RequestHandlerClass, StreamRequestHandler)
    assert served.server.RequestHandlerClass.timeout == SILENT_SECONDS
    silent = socket.create_connection((served.ip, served.port))
    with silent, socket.create_connection((served.ip, served.port)) as strange:
        strange.sendall(b"\x16\x03\x01nonsense\r\n\r\n")
        assert served.ask("/healthz")[0] == 200


def test_callers_are_not_told_of_anywhere(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.ask("/healthz")
    socket.create_connection((served.ip, served.port)).close()
    served.ask("/healthz")
    assert capfd.readouterr() == ("", "")


def test_an_address_that_is_taken_is_an_error(served: Served) -> None:
    with pytest.raises(InputOutput, match="in use"):
        Health(Metrics()).start(served.ip, served.port)


def test_the_service_manager_is_told_at_a_path_and_at_an_abstract_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, name in ((str(tmp_path / "notify"), str(tmp_path / "notify")), ("\0podwire-test", "@podwire-test")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            monkeypatch.setenv("NOTIFY_SOCKET", name)
            notify("READY=1")
            manager.settimeout(10)
            assert manager.recv(64) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-listens", "no path"])
def test_without_a_service_manager_nobody_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    notify("READY=1")
