"""Answers that never end, line by line. A dead server is noticed by TCP keepalives, so that quiet costs nothing."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Lines:
    """One answer that was not preloaded."""

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response

    def lines(self) -> Iterator[bytes]:
        """Those that are whole and not empty, until the server ends. Raises HTTPError, OSError, ValueError."""
        rest: list[bytes] = []
        for chunk in self._response.stream(1 << 16):
            first, *others = chunk.split(b"\n")
            rest.append(first)
            for one in others:
                line = b"".join(rest)
                rest = [one]
                if line:
                    yield line

    def be_patient(self, seconds: float | None = None) -> None:
        """From now on silence is no fault, or only after so long."""
        wire = getattr(self._response.connection, "sock", None)
        if wire is not None:
            wire.settimeout(seconds)

    def interrupt(self) -> None:
        """From another thread: whoever reads gets an error, or the end."""
        with suppress(OSError, RuntimeError, ValueError):  # has just ended by itself
            self._response.shutdown()

    def close(self) -> None:
        self._response.close()
