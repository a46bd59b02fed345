"""Network namespaces: enters one by its path, and returns."""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EPERM

from cni.protocol.errors import InvalidNetns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

OWN = "/proc/thread-self/ns/net"
CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
RTLD_NOW = 2


def _setns() -> Callable[[int], None]:
    """Returns setns(2): os.setns since Python 3.12, and in the bundle; else libc's by ctypes' C half (1 ms), whose
    wrapper costs 5.
    """
    native: Callable[[int, int], None] | None = getattr(os, "setns", None)
    if native is not None:
        return lambda descriptor: native(descriptor, CLONE_NEWNET)
    try:
        from _ctypes import call_function, dlopen, dlsym
    except ImportError:
        return _setns_by_ctypes
    program: Any = None  # dlopen(3): the program itself, libc included
    function = dlsym(dlopen(program, RTLD_NOW), "setns")

    def enter(descriptor: int) -> None:
        if call_function(function, (descriptor, CLONE_NEWNET)) != 0:
            _setns_by_ctypes(descriptor)  # once more, for its errno

    return enter


def _setns_by_ctypes(descriptor: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Netns:
    """A namespace held open by a descriptor, so that it stays the same whatever happens to its path."""

    def __init__(self, path: str) -> None:
        """Opens the path; does not block on a pipe. Raises OSError."""
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def close(self) -> None:
        os.close(self.descriptor)

    def same_as(self, other: Netns) -> bool:
        mine, theirs = os.fstat(self.descriptor), os.fstat(other.descriptor)
        return (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino)


class EnteredNetns:
    """Moves the calling thread into a namespace for the length of a `with`, then back."""

    def __init__(self, netns: Netns, home: Netns) -> None:
        self._netns = netns
        self._home = home

    def __enter__(self) -> None:
        """Raises InvalidNetns."""
        try:
            _setns()(self._netns.descriptor)
        except OSError as error:
            remedy = "podwire needs CAP_SYS_ADMIN" if error.errno == EPERM else "is it a network namespace?"
            raise InvalidNetns(f"cannot enter {self._netns.path!r}: {error.strerror}; {remedy}") from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _setns()(self._home.descriptor)
