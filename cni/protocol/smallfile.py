"""Small files whose paths come from a user: read whole, up to a limit, and without waiting.

The path may be that of a pipe, whose opening waits for a writer, or of a device without an end.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EFBIG, EINVAL, EISDIR

LARGEST = 1 << 20  # bytes
PIECE = 1 << 16
KINDS = 0o170000  # S_IFMT
FOLDER, REGULAR = 0o040000, 0o100000


def read(path: str, largest: int = LARGEST) -> bytes:
    """Returns the content. Raises OSError, also for a larger file and for one that is not regular."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        kind = os.fstat(descriptor).st_mode & KINDS
        if kind != REGULAR:
            reason = (EISDIR, os.strerror(EISDIR)) if kind == FOLDER else (EINVAL, "not a regular file")
            raise OSError(*reason, path)
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
    """Returns a value that changes whenever the file changes, appears or disappears."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_ino, status.st_size
