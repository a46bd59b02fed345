"""What others ask the agent over HTTP: is it alive, is it ready, what does it count. And what it tells its manager."""

from __future__ import annotations

import os
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cni.agent.metrics import Metrics

TEXT = "text/plain; charset=utf-8"
SILENT_SECONDS = 10.0  # as long as a caller may be, who has a thread of ours
METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """Serves from a thread of its own once it is started."""

    def __init__(self, metrics: Metrics) -> None:
        self.ready = False
        self._metrics = metrics
        self._server: ThreadingHTTPServer | None = None

    def start(self, ip: str, port: int) -> None:
        """Raises OSError where the address cannot be had."""
        health = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SILENT_SECONDS

            def do_GET(self) -> None:
                status, kind, body = health.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
                """Probes come every few seconds: nobody wants to read of them."""

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A caller that goes away is no matter of ours."""

        self._server = Server((ip, port), Handler)
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 3600}, name="health", daemon=True).start()

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Status, content type and body for a path."""
        path = path.partition("?")[0]
        if path == "/healthz":
            return HTTPStatus.OK, TEXT, b"podwired is running\n"
        if path == "/readyz":
            if self.ready:
                return HTTPStatus.OK, TEXT, b"podwired is ready\n"
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, b"podwired is not ready yet, its log says why\n"
        if path == "/metrics":
            return HTTPStatus.OK, METRICS, self._metrics.text()
        return HTTPStatus.NOT_FOUND, TEXT, b"/healthz, /readyz and /metrics are here\n"


def notify(state: str) -> None:
    """Tells the service manager, where there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return
