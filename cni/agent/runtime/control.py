"""The agent's local socket: questions of the command-line tool, which the loop answers between other events.

Its own thread reads requests and writes answers, one question at a time, with a pause after each: whatever is sent to
it, the loop has most of its time for other things (cni.protocol.control has the protocol).
"""

from __future__ import annotations

import os
import socket
import stat
import time
from contextlib import suppress
from errno import ECONNREFUSED, EEXIST, EPERM
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from cni.agent.logs import error_text, log
from cni.agent.runtime.server import REQUEST_BYTES, Server
from cni.protocol.control import VERSION
from cni.protocol.errors import DecodingFailure
from cni.protocol.jsontext import dump, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.protocol.jsontext import JsonValue

    Object = dict[str, JsonValue]

ANSWER_SECONDS = 2.0  # the loop may be at a long transaction
PAUSES = 4  # times as long as a question took


class Asked:
    """A question, for the loop's thread to answer."""

    def __init__(self, request: Mapping[str, JsonValue]) -> None:
        self.request = request
        self.at = time.monotonic()
        self.seconds = 0.0  # that it took to answer
        self._answers: SimpleQueue[Object | Callable[[], Object]] = SimpleQueue()

    @property
    def is_late(self) -> bool:
        """True if nobody waits for the answer any more."""
        return time.monotonic() > self.at + ANSWER_SECONDS

    def answer(self, answer: Object | Callable[[], Object]) -> None:
        """Gives the answer, or a function of it for the thread that asks: what can be done without the loop."""
        self._answers.put(answer)

    def wait(self) -> Object:
        try:
            answer = self._answers.get(timeout=ANSWER_SECONDS)
        except Empty:
            return {"error": f"podwired is busy: no answer within {ANSWER_SECONDS:g} s (try again)"}
        try:
            return answer() if callable(answer) else answer
        except Exception as defect:  # noqa: BLE001  # a question must not end the thread
            log.error("question %r: %s", self.request, error_text(defect))
            return {"error": error_text(defect)}


class ControlSocket:
    """A socket at a path, for the agent's user alone; as a source of events it emits what is asked."""

    def __init__(self, path: str) -> None:
        """Raises OSError if the path cannot be had, or is another's."""
        self.path = path
        self._listener = listen(path)
        self._status = os.lstat(path)
        self._server: Server | None = None

    def start(self, emit: Callable[[Asked], None]) -> None:
        """Serves from a thread of its own."""

        def respond(request: bytes, _: str) -> bytes:
            return respond_to(request, emit)

        self._server = Server(self._listener, is_complete, respond)
        Thread(target=self._server.run, name="control", daemon=True).start()

    def close(self) -> None:
        """Ends the thread, and removes the path unless it is another's by now."""
        if self._server is not None:
            self._server.end()
        else:
            self._listener.close()
        with suppress(OSError):
            if os.path.samestat(os.lstat(self.path), self._status):
                os.unlink(self.path)


def open_control(path: str) -> list[ControlSocket]:
    """Returns the socket; none where it cannot be had: an agent that cannot be asked is better than none."""
    try:
        return [ControlSocket(path)]
    except OSError as error:
        log.warning("questions are not answered at %s: %s", path, error.strerror or error)
        return []


def is_complete(request: bytes) -> bool:
    return b"\n" in request


def respond_to(request: bytes, emit: Callable[[Asked], None]) -> bytes:
    """Returns the line that answers a request."""
    try:
        asked = Asked(read(request))
    except DecodingFailure as error:
        answer: dict[str, JsonValue] = {"error": error.message}
    else:
        emit(asked)
        answer = asked.wait()
        time.sleep(PAUSES * asked.seconds)
    return dump({"version": VERSION, **answer}).encode() + b"\n"


def read(request: bytes) -> dict[str, JsonValue]:
    """Raises DecodingFailure for what is no request of this version."""
    line, newline, _ = request.partition(b"\n")
    if not newline:
        raise DecodingFailure(f"the request is longer than {REQUEST_BYTES} bytes")
    value = parse(line, "the request")
    if not isinstance(value, dict):
        raise DecodingFailure("the request is not an object")
    if value.get("version") != VERSION:
        raise DecodingFailure(f"version: {value.get('version')!r} is not known (this podwired has {VERSION})")
    return value


def listen(path: str) -> socket.socket:
    """Returns a socket that only its owner can open, in the place of that of a process that is gone. Raises OSError."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, 0o700, exist_ok=True)
    if os.stat(folder).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OSError(EPERM, f"others may write to {folder}")
    _raise_if_taken(path)
    hidden = os.path.join(folder, f".{os.path.basename(path)}.{os.getpid()}")  # nobody connects before it listens
    with suppress(FileNotFoundError):
        os.unlink(hidden)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(hidden)
        listener.listen()
        os.rename(hidden, path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def remove_left_over(path: str) -> None:
    """Removes the socket of a process that is gone."""
    with suppress(OSError):
        _raise_if_taken(path)
        os.unlink(path)


def _raise_if_taken(path: str) -> None:
    """Raises OSError if something else than a socket that nobody serves has the path; links are not followed."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(EEXIST, "is there, and is no socket of podwired")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        error = caller.connect_ex(path)
    if error != ECONNREFUSED:
        raise OSError(EEXIST, "another process serves it (stop it, or choose another --control-socket)")
