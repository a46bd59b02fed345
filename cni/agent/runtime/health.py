"""The agent's answers over HTTP (alive, ready, metrics, the state), and its notifications of the service manager."""

from __future__ import annotations

import os
import socket
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING

from cni.agent.logs import error_text, log
from cni.agent.runtime.healthserver import TEXT, HealthServer
from cni.agent.status.rendered import Rendered
from cni.protocol.errors import IOFailure

if TYPE_CHECKING:
    from cni.agent.metrics import Metrics
    from cni.agent.runtime.healthserver import Answer
    from cni.agent.status.rendered import Documents

PAGE, API = "/", "/api/v1/status"
HTML, JSON = "text/html; charset=utf-8", "application/json"
METRICS = "text/plain; version=0.0.4; charset=utf-8"


class Health:
    """Serves from a thread of its own once it is started."""

    def __init__(self, metrics: Metrics) -> None:
        self.error = "pods cannot be attached yet, its log says why"  # why it is not ready
        self.policy_error = ""  # why policies are not enforced, or not all
        self._metrics = metrics
        self._rendered: Rendered | None = None

    def start(self, ip: str, port: int) -> None:
        """Raises IOFailure where the address cannot be had."""
        try:
            server = HealthServer(ip, port, self.answer)
        except OSError as error:
            raise IOFailure(f"cannot serve health on {ip} port {port}: {error.strerror}") from None
        Thread(target=server.run, name="health", daemon=True).start()

    def show(self, documents: Documents) -> None:
        """Serves the agent's state, too."""
        self._rendered = Rendered(documents)

    @property
    def reasons(self) -> list[str]:
        """Why the node is not ready; empty if it is."""
        return [*filter(None, (self.error, self.policy_error))]

    def answer(self, path: str, is_local: bool = False) -> Answer:
        """Returns status, content type and body for a path. A caller who is not on this node gets no details
        beside the reasons why it is not ready.
        """
        try:
            return self._answer(path.partition("?")[0], is_local=is_local)
        except Exception as defect:  # noqa: BLE001  # a page must not end the thread of probes
            log.error("%s: %s", path, error_text(defect))
            return HTTPStatus.INTERNAL_SERVER_ERROR, TEXT, f"{error_text(defect)}\n".encode()

    def _answer(self, path: str, *, is_local: bool) -> Answer:
        if path == "/healthz":
            return HTTPStatus.OK, TEXT, b"podwired is running\n"
        if path == "/readyz":
            return self._readiness()
        if path == "/metrics":
            return HTTPStatus.OK, METRICS, self._metrics.text()
        if path in (PAGE, API) and self._rendered is not None:
            rendered = self._rendered
            if path == PAGE:
                return HTTPStatus.OK, HTML, rendered.page(detailed=is_local)
            return HTTPStatus.OK, JSON, rendered.json(detailed=is_local)
        return HTTPStatus.NOT_FOUND, TEXT, f"{PAGE}, {API}, /healthz, /readyz and /metrics are here\n".encode()

    def _readiness(self) -> Answer:
        error = "; ".join(self.reasons)
        if not error:
            return HTTPStatus.OK, TEXT, b"podwired is ready\n"
        return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"podwired is not ready: {error}\n".encode()


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
