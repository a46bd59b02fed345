"""A wait for changes of files, by their folders (inotify(7)), and for the end of a store."""

from __future__ import annotations

import os
import select
from stat import S_ISLNK
from threading import Event
from typing import TYPE_CHECKING

from cni.agent import inotify
from cni.agent.inotify import Inotify

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = (
    inotify.IN_ATTRIB | inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO | inotify.IN_CREATE
    | inotify.IN_DELETE | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF
)  # fmt: skip
MOST_LINKS = 40  # that the kernel follows, too (path_resolution(7))


class StopEvent(Event):
    """An event with a descriptor that is readable once it is set."""

    def __init__(self) -> None:
        super().__init__()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        super().set()
        os.eventfd_write(self._descriptor, 1)

    def __del__(self) -> None:
        os.close(self._descriptor)


class FolderWatch:
    """The folders by which the kernel finds some files; nobody is told of what another host changes on a network's."""

    def __init__(self, stop: StopEvent) -> None:
        self._stop = stop
        self._poll = select.poll()
        self._poll.register(stop, select.POLLIN)
        self._inotify: Inotify | None
        try:
            self._inotify = Inotify()
        except OSError:  # there are too many, or none
            self._inotify = None
        else:
            self._poll.register(self._inotify, select.POLLIN)

    def cover(self, paths: Iterable[str]) -> bool:
        """Watches the folders of these files. Returns False if changes of a file would not be noticed."""
        if self._inotify is None:
            return False
        folders = {folder for path in paths for folder in folders_of(path)}
        watched = [self._inotify.add(folder, MASK) for folder in sorted(folders)]
        return all(watched)

    def wait(self, seconds: float) -> bool:
        """Returns True after a change or once the store ends, False after this time."""
        return bool(self._poll.poll(seconds * 1000))

    def forget(self) -> None:
        """Forgets the changes until now: what is looked at from here on has them."""
        if self._inotify is not None:
            self._inotify.read()

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()


def folders_of(path: str) -> set[str]:
    """Returns the folder of a file, and that of each symbolic link on the way to it."""
    folders, current = set[str](), "/"
    rest = os.path.abspath(path).split("/")
    links = 0
    while rest:
        name = rest.pop(0)
        step = os.path.join(current, name)
        if not rest:
            folders.add(current)
        try:
            target = os.readlink(step) if S_ISLNK(os.lstat(step).st_mode) else None
        except OSError:  # missing
            target = None
        if target is None or links == MOST_LINKS:
            current = os.path.normpath(step)
            continue
        links += 1
        folders.add(current)
        rest = [*target.split("/"), *rest]
        current = "/" if target.startswith("/") else current
    return folders
