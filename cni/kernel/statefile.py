"""Small files that outlive a call: written whole or not at all, and missing ones are no fault."""

from __future__ import annotations

import posix as os  # os proper loads collections' abstract classes, for 0.9 ms
from errno import ENOSPC

PIECE = 1 << 16  # bytes


def read(path: str) -> bytes | None:
    """None where there is no such file. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        parts = []
        while part := os.read(descriptor, PIECE):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def write(path: str, data: bytes) -> None:
    """In place of what is there; readable by the owner alone, as is the folder if it has to be made. Raises OSError."""
    folder, _, name = path.rpartition("/")
    beside = f"{folder}/.{name}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except FileNotFoundError:
        from os import makedirs  # once in a machine's life

        makedirs(folder, 0o700, exist_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        written = os.write(descriptor, data)
    finally:
        os.close(descriptor)
    if written != len(data):
        os.unlink(beside)
        raise OSError(ENOSPC, os.strerror(ENOSPC))
    os.rename(beside, path)


def remove(path: str) -> None:
    """A file that is gone already is success. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def names(folder: str) -> list[str]:
    """The files of a folder, those half written left out; a folder that is not there has none. Raises OSError."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []
