"""Server of short requests, in one thread, with a bound on connections and on the time that one may take.

A request is answered as soon as it is complete, so if there are too many connections the oldest one without a request
is closed. Who sends a request at once is served however many other connections are open.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CONNECTIONS = 64  # at a time; each is a descriptor
SECONDS = 3.0  # for a connection in all, from its acceptance to the last byte of the answer
REQUEST_BYTES = 8192
BACKLOG = 1024  # connections that wait to be accepted
READ, WRITE = select.POLLIN, select.POLLOUT


class _Connection:
    """One caller at a host: `received` is the request so far, `answer` the bytes still to be sent."""

    def __init__(self, caller: socket.socket, host: str, now: float) -> None:
        self.socket, self.host, self.deadline = caller, host, now + SECONDS
        self.received = self.answer = b""


class Server:
    """`is_complete` tells of the bytes that have come whether they are a request, `respond` gives the answer to one and
    the IP address that it came from (empty at a local socket).

    A request that is longer than REQUEST_BYTES is given to `respond` as far as it has come: incomplete.
    """

    def __init__(
        self, listener: socket.socket, is_complete: Callable[[bytes], bool], respond: Callable[[bytes, str], bytes]
    ) -> None:
        self._listener, self._is_complete, self._respond = listener, is_complete, respond
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        self._connections: dict[int, _Connection] = {}  # by descriptor, the oldest first
        self._poll = select.poll()
        self._poll.register(self._listener, READ)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._wake, READ)
        self._ends = False

    def run(self) -> None:
        """Serves until another thread calls `end`."""
        while not self._ends:
            self.serve_once()
        self.close()

    def end(self) -> None:
        os.eventfd_write(self._wake, 1)  # first: once it ends, the other thread closes it
        self._ends = True

    def serve_once(self) -> None:
        """Waits for an event or the next deadline, and deals with it."""
        events = self._poll.poll(self._milliseconds())
        for descriptor, _ in events:
            connection = self._connections.get(descriptor)
            if connection is not None:
                self._proceed(connection)
        if any(descriptor == self._listener.fileno() for descriptor, _ in events):
            self._accept()
        now = time.monotonic()
        for connection in [connection for connection in self._connections.values() if connection.deadline <= now]:
            self._drop(connection)

    def close(self) -> None:
        for connection in [*self._connections.values()]:
            self._drop(connection)
        self._listener.close()
        os.close(self._wake)

    def _milliseconds(self) -> float | None:
        """Returns the milliseconds until the next deadline; connections are in the order of theirs."""
        first = next(iter(self._connections.values()), None)
        return None if first is None else max(0.0, first.deadline - time.monotonic()) * 1000 + 1

    def _accept(self) -> None:
        """Accepts waiting connections, a limited number at a time: those that are accepted come first."""
        for _ in range(BACKLOG):
            try:
                caller, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor is free, or the caller has gone
                self._make_room()
                time.sleep(0.01)
                return
            if len(self._connections) >= CONNECTIONS:
                self._make_room()
            caller.setblocking(False)
            connection = _Connection(caller, address[0] if isinstance(address, tuple) else "", time.monotonic())
            self._connections[caller.fileno()] = connection
            self._poll.register(caller, READ)
            self._proceed(connection)

    def _make_room(self) -> None:
        """Closes the oldest connection without a complete request, else the oldest of all."""
        waiting = (connection for connection in self._connections.values() if not connection.answer)
        oldest = next(waiting, None) or next(iter(self._connections.values()), None)
        if oldest is not None:
            self._proceed(oldest)
        if oldest is not None and oldest.socket.fileno() >= 0:
            self._drop(oldest)

    def _proceed(self, connection: _Connection) -> None:
        """Reads and writes as much as is possible now."""
        try:
            if not connection.answer and not self._receive(connection):
                return
            connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        except BlockingIOError:
            return
        except OSError:
            connection.answer = b""
        if not connection.answer:
            self._drop(connection)

    def _receive(self, connection: _Connection) -> bool:
        """True once there is an answer. Raises BlockingIOError, OSError."""
        data = connection.socket.recv(REQUEST_BYTES)
        connection.received += data
        if not self._is_complete(connection.received):
            if data and len(connection.received) < REQUEST_BYTES:
                return False
            if not data:
                raise ConnectionResetError
        connection.answer = self._respond(connection.received, connection.host)
        self._poll.modify(connection.socket, WRITE)
        return True

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.socket.fileno()]
        self._poll.unregister(connection.socket)
        with suppress(OSError):  # the caller has gone
            connection.socket.shutdown(socket.SHUT_WR)
        connection.socket.close()
