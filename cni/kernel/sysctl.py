"""Kernel settings under /proc/sys, those of the network namespace that the calling thread is in."""

from __future__ import annotations

import posix as os  # os proper loads collections' abstract classes, for 0.9 ms

ROOT = "/proc/sys/"
SMALL = 4096  # bytes


def read_text(path: str) -> str | None:
    """A small file's text without its line end; None where there is no such file. Raises OSError.

    Read as bytes: a text file would have the interpreter load its codecs, for 1 ms.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, SMALL).decode("utf-8", "replace").strip()
    finally:
        os.close(descriptor)


def exists(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def read(key: str) -> str | None:
    """None where the kernel has no such key. Raises OSError."""
    return read_text(ROOT + key)


def write(key: str, value: str) -> None:
    """Raises OSError."""
    descriptor = os.open(ROOT + key, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
