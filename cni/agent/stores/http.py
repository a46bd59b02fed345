"""HTTP for the stores: answers read within bounds of size and time, and streams that never end, line by line.

Any server may be hostile: no answer costs more memory or time than the limits below. A dead server is noticed by TCP
keepalives, so that an idle stream costs nothing.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from errno import EMSGSIZE, ETIME
from http.client import responses
from threading import Timer
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from urllib3 import BaseHTTPResponse

# A server that is silent for 30 s is probed three times, 10 s apart; what was sent is acknowledged within 30 s.
KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]
CONNECT_SECONDS = 5.0
WHOLE_SECONDS = 60.0  # for an answer, however steadily it trickles
LARGEST = 32 << 20  # bytes of an answer, or of a line: a page of 100 nodes has 1 MB, one of 2,000 keys as much
LONGEST_WAIT = 60.0  # seconds for which a server may ask to wait
PIECE = 1 << 16
KEPT_CONNECTIONS = 4  # between two requests: as many as the resources of Kubernetes that are watched at once


class _Punctual:
    """A connection on which the head of an answer has to arrive in time, however slowly its lines come."""

    sock: Any
    timeout: Any

    def getresponse(self) -> Any:
        sock = self.sock
        response = None
        try:
            with _deadline(WHOLE_SECONDS, lambda: socket.socket.shutdown(sock, socket.SHUT_RDWR)):
                response = super().getresponse()  # type: ignore[misc]  # of the class beside this one
        except OSError:
            if response is not None:
                response.close()
            raise
        response.raw_socket = sock  # the connection itself forgets it where the server is going to close it
        return response


class _Plain(_Punctual, HTTPConnection):
    """A connection without TLS."""


class _Secure(_Punctual, HTTPSConnection):
    """A connection with TLS."""


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def pool_of(context: ssl.SSLContext | None, silence: float, server_name: str = "") -> urllib3.PoolManager:
    """Returns a pool of persistent connections; `silence` in seconds is the longest between two pieces of an answer."""
    pool = urllib3.PoolManager(
        retries=False,
        maxsize=KEPT_CONNECTIONS,
        ssl_context=context,
        socket_options=KEEPALIVE,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silence),
        server_hostname=server_name or None,
    )
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return pool


@contextmanager
def _deadline(seconds: float, abort: Callable[[], object]) -> Iterator[None]:
    """Calls `abort` after so many seconds; whatever follows, even an answer that seems complete, is an OSError."""
    late = False

    def fire() -> None:
        nonlocal late
        late = True
        with suppress(OSError, RuntimeError, ValueError):  # has just ended by itself
            abort()

    timer = Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if late:
            raise OSError(ETIME, f"no complete response within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
    if late:
        raise OSError(ETIME, f"no complete response within {seconds:g} s")


def body_of(response: BaseHTTPResponse) -> bytes:
    """Returns the body of an answer that was not preloaded. Raises HTTPError, OSError."""
    parts, size = [], 0
    try:
        with _deadline(WHOLE_SECONDS, response.shutdown):
            for part in response.stream(PIECE, decode_content=True):
                parts.append(part)
                size += len(part)
                if size > LARGEST:
                    break
    except BaseException:
        response.close()
        raise
    if size > LARGEST:
        response.close()
        raise OSError(EMSGSIZE, f"response larger than {LARGEST >> 20} MB")
    response.release_conn()
    return b"".join(parts)


def parsed(data: bytes) -> Any:
    """Returns a JSON value. Raises ValueError."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def retry_after(response: BaseHTTPResponse) -> float:
    """Returns for how many seconds the server asks to wait (RFC 9110, Retry-After); 0 if it does not."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, OSError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


def status_text(status: int) -> str:
    """Returns a status with its phrase, as in `404 Not Found`."""
    return f"{status} {responses.get(status, '')}".strip()


def connection_error(error: Exception, silence: float) -> str:
    """Returns the cause alone, which urllib3 wraps in names of its classes.

    `silence`: after how many seconds without an answer the request was given up.
    """
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return f"unreachable: connection timed out after {CONNECT_SECONDS:g} s"
    if isinstance(error, ReadTimeoutError):
        return f"no response within {silence:g} s"
    causes = [cause for cause in (*error.args, error.__cause__, error) if isinstance(cause, Exception)]
    cause = next((cause for cause in causes if isinstance(cause, OSError)), causes[0])
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS handshake failed: {cause.reason or cause}"
    text = (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(cause)
    return f"unreachable: {text}" if isinstance(error, NewConnectionError) else text


class Lines:
    """An answer that was not preloaded, read line by line."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def lines(self) -> Iterator[bytes]:
        """Yields complete lines that are not empty, until the server ends. Raises HTTPError, OSError, ValueError."""
        rest: list[bytes] = []
        size = 0
        for chunk in self._response.stream(PIECE, decode_content=True):
            first, *later = chunk.split(b"\n")
            rest.append(first)
            size += len(first)
            for part in later:
                line = b"".join(rest)
                rest, size = [part], len(part)
                if line:
                    yield line
            if size > LARGEST:
                raise OSError(EMSGSIZE, f"line larger than {LARGEST >> 20} MB")

    def set_silence(self, seconds: float | None = None) -> None:
        """Sets after how many seconds of silence reading fails; None for never."""
        raw_socket = getattr(self._response, "raw_socket", None)
        if raw_socket is not None:
            raw_socket.settimeout(seconds)

    def interrupt(self) -> None:
        """Ends reading in another thread, with an error or as if the server had ended."""
        with suppress(OSError, RuntimeError, ValueError):  # has just ended by itself
            self._response.shutdown()

    def close(self) -> None:
        self._response.close()
