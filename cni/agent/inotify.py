"""Notifications of changes in folders (inotify(7))."""

from __future__ import annotations

import ctypes
import os
from struct import Struct

IN_NONBLOCK, IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
IN_ATTRIB, IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF, IN_IGNORED = 0x100, 0x200, 0x400, 0x800, 0x8000
EVENT = Struct("=iIII")  # struct inotify_event: watch, mask, cookie, length of the name behind it
READ_BYTES = 1 << 16


class Inotify:
    """A descriptor that becomes readable when something changes in the folders that were added."""

    def __init__(self) -> None:
        """Raises OSError, also where the user has too many of these (fs.inotify.max_user_instances)."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self._descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def fileno(self) -> int:
        return int(self._descriptor)

    def add(self, folder: str, mask: int) -> bool:
        """Watches a folder, or goes on watching it. Returns False if it cannot be watched, as when it is missing."""
        return int(self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask)) >= 0

    def read(self) -> list[tuple[int, bytes]]:
        """Returns of all changes since the call before the mask and the name in the folder; does not wait."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return []
        position, changes = 0, []
        while position < len(data):
            _, mask, _, length = EVENT.unpack_from(data, position)
            position += EVENT.size
            changes.append((mask, data[position : position + length].rstrip(b"\0")))
            position += length
        return changes

    def close(self) -> None:
        os.close(self._descriptor)
