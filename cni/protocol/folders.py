"""Folders for state, created with explicit modes: a runtime's umask may let every user write to them."""

from __future__ import annotations

import posix as os  # see cni/__init__.py


def make(path: str, mode: int) -> None:
    """Creates the folder and its missing parents; an existing one is not changed. Raises OSError."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = path.rstrip("/").rpartition("/")[0]
        if not parent:
            raise
        make(parent, mode)
        _make_one(path, mode)


def _make_one(path: str, mode: int) -> None:
    """Creates one folder. Raises OSError, also on a file system without mkdir(2) (/proc answers ENOENT)."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
