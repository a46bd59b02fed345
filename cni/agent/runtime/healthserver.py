"""Answers HTTP requests of probes: the first line of a request counts."""

from __future__ import annotations

import socket
from http import HTTPStatus
from typing import TYPE_CHECKING

from cni.agent.runtime.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[HTTPStatus, str, bytes]

TEXT = "text/plain; charset=utf-8"


class HealthServer(Server):
    """`answer` gives status, content type and body for a path."""

    def __init__(self, ip: str, port: int, answer: Callable[[str], Answer]) -> None:
        """Raises OSError where the address cannot be had."""
        listener = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ip, port))
        except OSError:
            listener.close()
            raise
        self.port: int = listener.getsockname()[1]
        super().__init__(listener, is_complete, lambda request: response(request, answer))


def is_complete(request: bytes) -> bool:
    return b"\r\n\r\n" in request or b"\n\n" in request


def response(request: bytes, answer: Callable[[str], Answer]) -> bytes:
    """The whole answer to a request, of which the first line counts; the connection ends with it (RFC 9112)."""
    method, path, version = [*request.partition(b"\n")[0].decode("latin-1").split(), "", "", ""][:3]
    if not version.startswith("HTTP/"):
        status, kind, body = HTTPStatus.BAD_REQUEST, TEXT, b"not an HTTP request\n"
    elif method not in ("GET", "HEAD"):
        status, kind, body = HTTPStatus.NOT_IMPLEMENTED, TEXT, b"only GET and HEAD are answered\n"
    else:
        status, kind, body = answer(path)
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + (b"" if method == "HEAD" else body)
