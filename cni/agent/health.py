"""What others ask the agent over HTTP: is it alive, is it ready, what does it count. And what it tells its manager."""

from __future__ import annotations

import os
import socket
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Any

from cni.spec.errors import InputOutput

if TYPE_CHECKING:
    from cni.agent.metrics import Metrics

TEXT = "text/plain; charset=utf-8"
SILENT_SECONDS = 10.0  # as long as a caller may be, who has a thread of ours
CALLERS = 16  # at a time
METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """Serves from a thread of its own once it is started."""

    def __init__(self, metrics: Metrics) -> None:
        self.ready = False
        self._metrics = metrics
        self._server: ThreadingHTTPServer | None = None

    def start(self, ip: str, port: int) -> None:
        """Raises InputOutput where the address cannot be had."""
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
            free = BoundedSemaphore(CALLERS)

            def server_bind(self) -> None:
                """Without the library's question for the host's name, which may wait for a name server."""
                TCPServer.server_bind(self)
                self.server_name, self.server_port = ip, port

            def process_request(self, request: Any, client_address: Any) -> None:
                """Those beyond the limit are sent away: descriptors are needed elsewhere."""
                if self.free.acquire(blocking=False):
                    super().process_request(request, client_address)
                else:
                    self.shutdown_request(request)

            def process_request_thread(self, request: Any, client_address: Any) -> None:
                try:
                    super().process_request_thread(request, client_address)
                finally:
                    self.free.release()

            def handle_error(self, *_: object) -> None:
                """A caller that goes away is no matter of ours."""

        try:
            self._server = Server((ip, port), Handler)
        except OSError as error:
            raise InputOutput(f"cannot serve health on {ip} port {port}: {error.strerror}") from None
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
