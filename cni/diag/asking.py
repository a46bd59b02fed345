"""Asks podwired at its local socket (cni.protocol.control)."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from cni.protocol.control import FOLDER, SUFFIX, VERSION, socket_path

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 10.0
ANSWER_BYTES = 32 << 20
PIECE_BYTES = 1 << 16
USUAL = "podwired"
REMEDY = "does podwired run? --socket names another"


class NoAnswer(Exception):
    """podwired cannot be asked, or has answered with an error; the text is for people."""


class NotRunning(NoAnswer):
    """Nobody listens at podwired's socket."""


class Silent(NoAnswer):
    """podwired listens, and does not answer in time."""


def ask(path: str, seconds: float = SECONDS, /, **request: object) -> dict[str, Any]:
    """Returns podwired's answer. An empty path stands for the only socket of this node. Raises NoAnswer."""
    path = path or _usual_path()
    question = json.dumps({"version": VERSION, **request}).encode() + b"\n"
    try:
        answer = json.loads(b"".join(_exchange(path, question, seconds)))
    except OSError as error:
        kind = NotRunning if isinstance(error, FileNotFoundError | ConnectionRefusedError) else NoAnswer
        kind = Silent if isinstance(error, TimeoutError) else kind
        remedy = "run it as root" if isinstance(error, PermissionError) else REMEDY
        raise kind(f"{path}: {error.strerror or error} ({remedy})") from None
    except ValueError:
        raise NoAnswer(f"{path}: the answer is not that of a podwired") from None
    if not isinstance(answer, dict) or answer.get("version") != VERSION:
        raise NoAnswer(f"{path}: the podwired there is of another version")
    if "error" in answer:
        raise NoAnswer(str(answer["error"]))
    return answer


def _usual_path() -> str:
    """Raises NoAnswer where there are several."""
    usual = socket_path(USUAL)
    try:
        sockets = [f"{FOLDER}/{name}" for name in sorted(os.listdir(FOLDER)) if name.endswith(SUFFIX)]
    except OSError:
        sockets = []
    if usual in sockets or not sockets:
        return usual
    if len(sockets) > 1:
        raise NoAnswer(f"several podwireds can be asked (name one with --socket): {', '.join(sockets)}")
    return sockets[0]


def _exchange(path: str, question: bytes, seconds: float) -> Iterator[bytes]:
    """Yields the answer in pieces. Raises OSError."""
    end, size = time.monotonic() + seconds, 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        connection.connect(path)
        connection.sendall(question)
        while piece := connection.recv(PIECE_BYTES):
            yield piece
            size += len(piece)
            if size > ANSWER_BYTES or time.monotonic() > end:
                raise OSError("the answer does not end")
