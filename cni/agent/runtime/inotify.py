"""Watch on the files that the agent has written: somebody may remove or overwrite them (inotify(7))."""

from __future__ import annotations

import ctypes
import os
from struct import Struct

IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
IN_CLOSE_WRITE, IN_MOVED_FROM, IN_DELETE, IN_IGNORED = 0x8, 0x40, 0x200, 0x8000
EVENT = Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name behind it
READ_BYTES = 1 << 16


class Files:
    """A descriptor that becomes readable when files change. The agent's own writing, by rename(2), is not reported."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Raises OSError."""
        self._folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
        self._names = {os.path.basename(path).encode() for path in paths}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def fileno(self) -> int:
        return int(self._descriptor)

    def renew(self) -> None:
        """Watches the folders; called again after they may have been created. A missing folder is not watched."""
        for folder in self._folders:
            mask = IN_CLOSE_WRITE | IN_MOVED_FROM | IN_DELETE
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)

    def read(self) -> bool:
        """Returns True if one of the files, or its folder, was changed; does not wait."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return False
        position, touched = 0, False
        while position < len(data):
            _, mask, _, length = EVENT.unpack_from(data, position)
            position += EVENT.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            touched = touched or bool(mask & IN_IGNORED) or name in self._names
        return touched

    def close(self) -> None:
        os.close(self._descriptor)
