"""Locks on files (flock(2)): the wait for one is bounded, and ends at a signal. The kernel drops them with the process.

A lock that is free costs one system call. Whoever waits is woken by the kernel, hence at once, and by a timer, to see
whether the wait is to end: a handler of signals alone does not end it, since flock(2) is taken up again after it.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from fcntl import LOCK_NB, flock
from time import monotonic

from cni.protocol.errors import TryAgain

try:
    from _signal import ITIMER_REAL, SIGALRM, setitimer, signal  # type: ignore[import-not-found]  # private
except ImportError:
    from signal import ITIMER_REAL, SIGALRM, setitimer, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_SECONDS = 30.0  # a burst of hundreds of calls takes a few
TICK_SECONDS = 0.05
PIECE = 1 << 16  # bytes

_interrupted: list[Callable[[], bool]] = []


def heed(*interrupted: Callable[[], bool]) -> None:
    """Lets waits for locks end when one of these returns True; without any, only their bound ends them."""
    _interrupted[:] = interrupted


def take(descriptor: int, how: int, name: str) -> None:
    """Waits for a lock. Raises TryAgain, naming the lock and its holder; a lock of another kind may be lost then."""
    try:
        flock(descriptor, how | LOCK_NB)
    except BlockingIOError:
        _wait(descriptor, how, name)


def _wait(descriptor: int, how: int, name: str) -> None:
    end = monotonic() + WAIT_SECONDS

    def look(*_: object) -> None:
        if any(asked() for asked in _interrupted):
            raise TryAgain(f"lock {name}: interrupted by a signal while waiting for it")
        if monotonic() > end:
            raise TryAgain(f"lock {name}: not free within {WAIT_SECONDS:.0f} s{_holder(descriptor)} (try again later)")

    before = signal(SIGALRM, look)
    setitimer(ITIMER_REAL, TICK_SECONDS, TICK_SECONDS)
    try:
        flock(descriptor, how)
    finally:
        setitimer(ITIMER_REAL, 0)
        signal(SIGALRM, before)


def _holder(descriptor: int) -> str:
    """In words, as proc(5) tells of /proc/locks; empty where it does not."""
    try:
        inode = f":{os.fstat(descriptor).st_ino}"
        held = [line.split() for line in _read("/proc/locks").splitlines() if " FLOCK " in line and "->" not in line]
        number = next(words[4] for words in held if words[5].endswith(inode))
        return f", held by process {number} ({_read(f'/proc/{number}/comm').strip()})"
    except (OSError, LookupError, StopIteration):
        return ""


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, PIECE):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")
    finally:
        os.close(descriptor)
