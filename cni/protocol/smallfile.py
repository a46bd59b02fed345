"""Small files whose names come from a user: read whole, within a limit, and never waited for.

The name may be that of a pipe, whose opening waits for a writer, or of a device that has no end.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EFBIG, EINVAL, EISDIR

LARGEST = 1 << 20  # bytes
PIECE = 1 << 16
KINDS = 0o170000  # S_IFMT
FOLDER, REGULAR = 0o040000, 0o100000


def read(path: str, largest: int = LARGEST) -> bytes:
    """Returns all of it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        kind = os.fstat(descriptor).st_mode & KINDS
        if kind != REGULAR:
            wrong = (EISDIR, os.strerror(EISDIR)) if kind == FOLDER else (EINVAL, "not a regular file")
            raise OSError(*wrong, path)
        parts, left = [], largest + 1
        while left and (part := os.read(descriptor, min(left, PIECE))):
            parts.append(part)
            left -= len(part)
        if not left:
            raise OSError(EFBIG, f"larger than {largest} bytes", path)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def state(path: str) -> object:
    """A value that changes whenever the file does, even where it is absent."""
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ino, found.st_size
