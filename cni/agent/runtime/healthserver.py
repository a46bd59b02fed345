"""Answers HTTP requests of probes, and of people: the first line of a request counts, and who asks."""

from __future__ import annotations

import socket
from http import HTTPStatus
from itertools import takewhile
from typing import TYPE_CHECKING

from cni.agent.runtime.server import Server
from cni.protocol.address import parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[HTTPStatus, str, bytes]

TEXT = "text/plain; charset=utf-8"
# No foreign assets, whatever gets into a page.
HEADERS = (
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\nX-Content-Type-Options: nosniff\r\n"
)
HOST = b"host:"


class HealthServer(Server):
    """`answer` gives status, content type and body for a path, to a caller who is on this node or not."""

    def __init__(self, ip: str, port: int, answer: Callable[[str, bool], Answer]) -> None:
        """Raises OSError where the address cannot be had."""
        listener = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ip, port))
        except OSError:
            listener.close()
            raise
        self.port: int = listener.getsockname()[1]
        super().__init__(listener, is_complete, lambda request, host: response(request, host, answer))


def is_complete(request: bytes) -> bool:
    return b"\r\n\r\n" in request or b"\n\n" in request


def is_local(request: bytes, host: str) -> bool:
    """Returns True if the caller is a process in the node's own network, and no page of somebody else's: a browser
    that was led here by a name of the page's own sends that name. So one Host has to be there, and no other.
    """
    head = takewhile(bool, request.splitlines()[1:])
    names = [line[len(HOST) :].decode("latin-1").strip() for line in head if line.lower().startswith(HOST)]
    return _is_loopback(host) and len(names) == 1 and _is_plain(names[0])


def _is_loopback(host: str) -> bool:
    try:
        return parse_ip(host).is_loopback
    except ValueError:  # a local socket has none
        return False


def _is_plain(name: str) -> bool:
    """Returns True for localhost, or an IP address (IPv6 in brackets), perhaps with a port."""
    if name.startswith("["):
        bare, _, rest = name[1:].partition("]")
    else:
        bare, colon, port = name.partition(":")
        rest = colon + port
    if rest and not (rest.startswith(":") and rest[1:].isdecimal()):
        return False
    try:
        return bare.lower() == "localhost" or bool(parse_ip(bare))
    except ValueError:
        return False


def response(request: bytes, host: str, answer: Callable[[str, bool], Answer]) -> bytes:
    """Returns the whole answer to a request, of which the first line counts; the connection ends with it (RFC 9112)."""
    method, path, version = [*request.partition(b"\n")[0].decode("latin-1").split(), "", "", ""][:3]
    if not is_complete(request):  # what is missing may be who is asked for
        status, kind, body = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, TEXT, b"the head of the request is too long\n"
    elif not version.startswith("HTTP/"):
        status, kind, body = HTTPStatus.BAD_REQUEST, TEXT, b"not an HTTP request\n"
    elif method not in ("GET", "HEAD"):
        status, kind, body = HTTPStatus.NOT_IMPLEMENTED, TEXT, b"only GET and HEAD are answered\n"
    else:
        status, kind, body = answer(path, is_local(request, host))
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{HEADERS}Connection: close\r\n\r\n".encode() + (b"" if method == "HEAD" else body)
