"""The agent's answers over HTTP (alive, ready, metrics), and its notifications of the service manager."""

from __future__ import annotations

import os
import socket
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING

from cni.agent.runtime.healthserver import TEXT, HealthServer
from cni.protocol.errors import IOFailure

if TYPE_CHECKING:
    from cni.agent.metrics import Metrics

METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """Serves from a thread of its own once it is started."""

    def __init__(self, metrics: Metrics) -> None:
        self.error = "pods cannot be attached yet, its log says why"  # why it is not ready
        self.policy_error = ""  # why policies are not enforced, or not all
        self._metrics = metrics

    def start(self, ip: str, port: int) -> None:
        """Raises IOFailure where the address cannot be had."""
        try:
            server = HealthServer(ip, port, self.answer)
        except OSError as error:
            raise IOFailure(f"cannot serve health on {ip} port {port}: {error.strerror}") from None
        Thread(target=server.run, name="health", daemon=True).start()

    @property
    def reasons(self) -> list[str]:
        """Why the node is not ready; empty if it is."""
        return [*filter(None, (self.error, self.policy_error))]

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Returns status, content type and body for a path."""
        path = path.partition("?")[0]
        if path == "/healthz":
            return HTTPStatus.OK, TEXT, b"podwired is running\n"
        if path == "/readyz":
            error = "; ".join(self.reasons)
            if not error:
                return HTTPStatus.OK, TEXT, b"podwired is ready\n"
            return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"podwired is not ready: {error}\n".encode()
        if path == "/metrics":
            return HTTPStatus.OK, METRICS, self._metrics.text()
        return HTTPStatus.NOT_FOUND, TEXT, b"/healthz, /readyz and /metrics are here\n"


def notify(state: str) -> None:
    """Notifies the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return
