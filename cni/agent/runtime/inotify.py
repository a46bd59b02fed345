"""Watch on the files that the agent has written: somebody may remove or overwrite them (inotify(7))."""

from __future__ import annotations

import os

from cni.agent.inotify import IN_CLOSE_WRITE, IN_DELETE, IN_IGNORED, IN_MOVED_FROM, Inotify


class Files:
    """A descriptor that becomes readable when files change. The agent's own writing, by rename(2), is not reported."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Raises OSError."""
        self._folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
        self._names = {os.path.basename(path).encode() for path in paths}
        self._inotify = Inotify()

    def fileno(self) -> int:
        return self._inotify.fileno()

    def renew(self) -> None:
        """Watches the folders; called again after they may have been created. A missing folder is not watched."""
        for folder in self._folders:
            self._inotify.add(folder, IN_CLOSE_WRITE | IN_MOVED_FROM | IN_DELETE)

    def read(self) -> bool:
        """Returns True if one of the files, or its folder, was changed; does not wait."""
        return any(mask & IN_IGNORED or name in self._names for mask, name in self._inotify.read())

    def close(self) -> None:
        self._inotify.close()
