"""A file or a folder that a store reads whenever it has changed: the kernel tells of that, and where it cannot, it is
looked at once a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.logs import error_text, log
from cni.agent.stores.folderwatch import FolderWatch
from cni.protocol import smallfile
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.agent.stores.folderwatch import StopEvent

LOOK_SECONDS = 1.0  # where the kernel tells nothing, and after an attempt that failed
SELDOM_SECONDS = 60.0  # where it tells: what a network's file system, or a mount, changes without telling
SETTLE_SECONDS = 0.1  # after a change: who writes a file may have just begun


class FileWatch:
    """Calls `read` after each change, and again while it returns False or raises; `failed` gets the error's text.

    `state_of` returns for the path what differs after a change, `parts_of` the files whose changes matter.
    """

    def __init__(
        self,
        path: str,
        read: Callable[[], bool],
        failed: Callable[[str], None],
        stop: StopEvent,
        state_of: Callable[[str], object] = smallfile.state,
        parts_of: Callable[[str], Iterable[str]] = lambda path: (path,),
    ) -> None:
        self._path, self._read, self._failed, self._stop = path, read, failed, stop
        self._state_of, self._parts_of = state_of, parts_of

    def run(self) -> None:
        """Looks until the store is closed."""
        seen: object = None
        watch = FolderWatch(self._stop)
        try:
            while not self._stop.is_set():
                watch.forget()
                is_covered = watch.cover(self._parts_of(self._path))
                state = self._state_of(self._path)
                if state != seen:
                    seen = state if self._attempt() else None
                if watch.wait(SELDOM_SECONDS if is_covered and seen is not None else LOOK_SECONDS):
                    self._stop.wait(SETTLE_SECONDS)
        finally:
            watch.close()

    def _attempt(self) -> bool:
        try:
            return self._read()
        except CniError as error:  # what is wrong with the content is so until that changes
            self._report(error)
            return True
        except Exception as error:  # noqa: BLE001  # whatever it is, the file may be readable a moment later
            self._report(error)
            return False

    def _report(self, error: Exception) -> None:
        text = error_text(error)
        if not isinstance(error, (CniError, OSError)):
            log.debug("%s", self._path, exc_info=error)
        self._failed(text if self._path in text else f"{self._path}: {text}")
