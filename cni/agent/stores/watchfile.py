"""A file or a folder that a store reads: looked at once a second, and read whenever it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.logs import error_text, log
from cni.protocol import smallfile
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

LOOK_SECONDS = 1.0


class FileWatch:
    """Calls `read` after each change, and again while it returns False or raises; `failed` gets the error's text.

    `state_of` returns for the path what differs after a change.
    """

    def __init__(
        self,
        path: str,
        read: Callable[[], bool],
        failed: Callable[[str], None],
        stop: Event,
        state_of: Callable[[str], object] = smallfile.state,
    ) -> None:
        self._path, self._read, self._failed, self._stop = path, read, failed, stop
        self._state_of = state_of

    def run(self) -> None:
        """Looks until the store is closed."""
        seen: object = None
        while True:
            state = self._state_of(self._path)
            if state != seen:
                seen = state if self._attempt() else None
            if self._stop.wait(LOOK_SECONDS):
                return

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
