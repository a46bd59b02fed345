"""HTTP as the stores need it: answers read within bounds of size and time, and answers that never end, line by line.

A server may be anybody: no answer of its may cost more memory or time than is said here. A dead server is noticed by
TCP keepalives, so that quiet costs nothing.
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from errno import EMSGSIZE, ETIME
from threading import Timer
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from typing import Any

    from urllib3 import BaseHTTPResponse

# A server that is silent for 30 s is asked three times, 10 s apart; what was sent is acknowledged within 30 s.
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
LONGEST_WAIT = 60.0  # that a server may ask for
PIECE = 1 << 16


class _Punctual:
    """A connection on which the head of an answer has to be there in time, however slowly its lines come."""

    sock: Any
    timeout: Any

    def getresponse(self) -> Any:
        sock = self.sock
        found = None
        try:
            with _ended_after(WHOLE_SECONDS, lambda: socket.socket.shutdown(sock, socket.SHUT_RDWR)):
                found = super().getresponse()  # type: ignore[misc]  # of the class beside this one
        except OSError:
            if found is not None:
                found.close()
            raise
        found.wire = sock  # the connection itself forgets it where the server is going to close it
        return found


class _Plain(_Punctual, HTTPConnection):
    pass


class _Secure(_Punctual, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def pool_of(context: ssl.SSLContext | None, silence: float, server_name: str = "") -> urllib3.PoolManager:
    """Connections that are kept; `silence` in seconds is the longest between two pieces of an answer."""
    pool = urllib3.PoolManager(
        retries=False,
        maxsize=2,
        ssl_context=context,
        socket_options=KEEPALIVE,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=silence),
        server_hostname=server_name or None,
    )
    pool.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return pool


@contextmanager
def _ended_after(seconds: float, end: Callable[[], object]) -> Iterator[None]:
    """Whatever happens then, also an answer that seems complete, is an OSError."""
    late = False

    def fire() -> None:
        nonlocal late
        late = True
        with suppress(OSError, RuntimeError, ValueError):  # has just ended by itself
            end()

    timer = Timer(seconds, fire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if late:
            raise OSError(ETIME, f"no whole answer within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()
    if late:
        raise OSError(ETIME, f"no whole answer within {seconds:g} s")


def whole(response: BaseHTTPResponse) -> bytes:
    """The body of an answer that was not preloaded. Raises HTTPError, OSError."""
    parts, size = [], 0
    try:
        with _ended_after(WHOLE_SECONDS, response.shutdown):
            for part in response.stream(PIECE):
                parts.append(part)
                size += len(part)
                if size > LARGEST:
                    break
    except BaseException:
        response.close()
        raise
    if size > LARGEST:
        response.close()
        raise OSError(EMSGSIZE, f"an answer of more than {LARGEST >> 20} MB")
    response.release_conn()
    return b"".join(parts)


def parsed(data: bytes) -> Any:
    """A JSON value. Raises ValueError."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None


def wait_of(response: BaseHTTPResponse) -> float:
    """For how many seconds the server wants to be left alone (RFC 9110, Retry-After); 0 where it does not say."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text) if text.isdecimal() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, OSError):
        return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)


class Lines:
    """One answer that was not preloaded."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def lines(self) -> Iterator[bytes]:
        """Those that are whole and not empty, until the server ends. Raises HTTPError, OSError, ValueError."""
        rest: list[bytes] = []
        size = 0
        for chunk in self._response.stream(PIECE):
            first, *others = chunk.split(b"\n")
            rest.append(first)
            size += len(first)
            for one in others:
                line = b"".join(rest)
                rest, size = [one], len(one)
                if line:
                    yield line
            if size > LARGEST:
                raise OSError(EMSGSIZE, f"a line of more than {LARGEST >> 20} MB")

    def be_patient(self, seconds: float | None = None) -> None:
        """From now on silence is no fault, or only after so long."""
        wire = getattr(self._response, "wire", None)
        if wire is not None:
            wire.settimeout(seconds)

    def interrupt(self) -> None:
        """From another thread: whoever reads gets an error, or the end."""
        with suppress(OSError, RuntimeError, ValueError):  # has just ended by itself
            self._response.shutdown()

    def close(self) -> None:
        self._response.close()
