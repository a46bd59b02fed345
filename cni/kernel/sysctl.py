"""Sysctls: kernel settings under /proc/sys, of the network namespace that the calling thread is in."""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EACCES, EPERM, EROFS

from cni.protocol.errors import OperationFailed

ROOT = "/proc/sys/"
SMALL = 4096  # bytes
UNWRITABLE = (EACCES, EPERM, EROFS)  # a container that runs containers may see /proc/sys so


def read_text(path: str) -> str | None:
    """Returns a small file's text without its line end; None if there is no such file. Raises OSError.

    It is read as bytes: for a text file the interpreter would load its codecs, for 1 ms. A pipe does not block.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
    """Returns the value; None if the kernel has no such key. Raises OSError."""
    return read_text(ROOT + key)


def is_writable(key: str) -> bool:
    try:
        os.close(os.open(ROOT + key, os.O_WRONLY))
    except OSError:
        return False
    return True


def write(key: str, value: str) -> None:
    """Writes the value. Raises OSError."""
    descriptor = os.open(ROOT + key, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def ensure(key: str, value: str, *, optional: bool = False) -> str | None:
    """Sets the value, and returns the one before; None if there is no such key.

    A value that is set already is not written: /proc/sys may be read-only, as in containers that run containers, with
    all set beforehand. Raises OperationFailed if it cannot be written; an `optional` one is then left unchanged.
    """
    before = read(key)
    if before is not None and before != value:
        change(key, before, value, optional=optional)
    return before


def change(key: str, before: str, value: str, *, optional: bool = False) -> None:
    """Writes a setting that is known to be `before`. Raises OperationFailed unless it is `optional`."""
    try:
        write(key, value)
    except OSError as error:
        if not optional or error.errno not in UNWRITABLE:
            setting = f"{dotted(key)}={value}"
            remedy = f"it is {before}: set {setting} where /proc/sys is writable"
            raise OperationFailed(f"cannot set {setting}: {error.strerror} ({remedy})") from None


def dotted(key: str) -> str:
    """Returns a key as sysctl(8) writes it: the dots of an interface's name become slashes."""
    return key.translate({ord("/"): ".", ord("."): "/"})
