"""Folders for state, made with modes of their own: a runtime's umask may leave them to everybody."""

from __future__ import annotations

import posix as os  # see cni/__init__.py


def make(path: str, mode: int) -> None:
    """With all above it that is missing. One that is there stays as it is. Raises OSError."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        above = path.rstrip("/").rpartition("/")[0]
        if not above:
            raise
        make(above, mode)
        _make_one(path, mode)


def _make_one(path: str, mode: int) -> None:
    """Makes one folder; a file system that makes none (/proc answers ENOENT) is an error."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
