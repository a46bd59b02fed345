"""Locks on files (flock(2)). The wait is bounded, and ends at a signal. The kernel releases them with the process.

A free lock costs one system call. A waiting process is woken by the kernel, at once, and by a timer, to check whether
the wait has to end: a signal handler alone does not end it, because flock(2) is restarted after it.
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

WAIT_SECONDS = 30.0  # hundreds of calls at once take a few
TICK_SECONDS = 0.05
PIECE = 1 << 16  # bytes

_interrupted: list[Callable[[], bool]] = []
_left: list[float] = []  # seconds for all waits together, if they are limited


def set_interrupts(*interrupted: Callable[[], bool]) -> None:
    """Sets the functions that end a wait for a lock by returning True; without any, only WAIT_SECONDS ends it."""
    _interrupted[:] = interrupted


def limit_waits(seconds: float) -> None:
    """Lets all waits of this process together take no longer than that: a person waits for many locks."""
    _left[:] = [seconds]


def acquire(descriptor: int, operation: int, name: str) -> None:
    """Waits for a lock: `operation` is LOCK_SH or LOCK_EX (flock(2)), `name` is for messages.

    Raises TryAgain with the lock's holder; a lock of the other kind on the descriptor may be lost then.
    """
    try:
        flock(descriptor, operation | LOCK_NB)
    except BlockingIOError:
        _wait(descriptor, operation, name)


def _wait(descriptor: int, operation: int, name: str) -> None:
    start, limit = monotonic(), min([WAIT_SECONDS, *_left])

    def check(*_: object) -> None:
        if any(interrupted() for interrupted in _interrupted):
            raise TryAgain(f"lock {name}: interrupted by a signal while waiting for it")
        if monotonic() > start + limit:
            within = f" within {limit:.0f} s" if limit else ""
            raise TryAgain(f"lock {name}: not free{within}{_holder(descriptor)} (try again later)")

    previous = signal(SIGALRM, check)
    setitimer(ITIMER_REAL, TICK_SECONDS, TICK_SECONDS)
    try:
        flock(descriptor, operation)
    finally:
        setitimer(ITIMER_REAL, 0)
        signal(SIGALRM, previous)
        _left[:] = [max(0.0, each - (monotonic() - start)) for each in _left]


def _holder(descriptor: int) -> str:
    """Returns the process that has the lock, for messages (proc(5), /proc/locks); empty if it is not found."""
    try:
        inode = f":{os.fstat(descriptor).st_ino}"
        locks = [line.split() for line in _read("/proc/locks").splitlines() if " FLOCK " in line and "->" not in line]
        pid = next(fields[4] for fields in locks if fields[5].endswith(inode))
        return f", held by process {pid} ({_read(f'/proc/{pid}/comm').strip()})"
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
