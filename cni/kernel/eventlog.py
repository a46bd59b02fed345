"""The places of lines about calls: a small file of root's below /run, a file of the user's, the system's log.

Nothing here keeps a call waiting: files are opened without following links and without waiting for a reader, and the
socket does not block. All functions raise OSError for what cannot be written.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from fcntl import LOCK_EX, LOCK_NB, flock

from cni.kernel import hostlock
from cni.protocol.callevent import NAMES

try:
    from _socket import SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket
except ImportError:
    from socket import SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

AF_UNIX = 1
SYSTEM_LOG = "/dev/log"
LARGEST = 1 << 18  # bytes: about 600 lines; there is one older file as large
SEARCHED = 1 << 14  # bytes at the file's end
APPENDING = os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def record(line: bytes, is_known: Callable[[bytes], bool] | None) -> bool:
    """Appends a line to the file of events. A full file becomes the older one.

    `is_known`: asked with the last lines; if it returns True, nothing is written. Returns True if the line is written.
    """
    path = f"{hostlock.RUN}/{NAMES[-1]}"
    descriptor = _open(path)
    try:
        size = os.fstat(descriptor).st_size
        if is_known is not None and is_known(os.pread(descriptor, SEARCHED, max(0, size - SEARCHED))):
            return False
        if size >= LARGEST:
            _rename(descriptor, path)
            os.close(descriptor)
            descriptor = -1
            descriptor = _open(path)
        os.write(descriptor, line)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def _open(path: str) -> int:
    return hostlock.open_of_root(path, os.O_RDWR | APPENDING)


def _rename(descriptor: int, path: str) -> None:
    """Renames a full file. Of several calls at once one does it: who has the file's lock, if the path leads to it."""
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return
    try:
        if os.stat(path, follow_symlinks=False).st_ino == os.fstat(descriptor).st_ino:
            os.rename(path, f"{hostlock.RUN}/{NAMES[0]}")
    except FileNotFoundError:  # another call has just renamed it
        return


def append(path: str, line: bytes) -> None:
    """Appends a line to a file of the user's, which is created for its owner alone."""
    descriptor = os.open(path, os.O_WRONLY | APPENDING, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def send(message: bytes) -> None:
    """Sends a message to the system's log (journald, rsyslog)."""
    sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
    try:
        sender.connect(SYSTEM_LOG)
        sender.send(message)
    finally:
        sender.close()
