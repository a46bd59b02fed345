"""Files that the agent writes for other programs: replaced atomically, and only if they change."""

from __future__ import annotations

import contextlib
import os

from cni.kernel import statefile
from cni.protocol import smallfile

MODE, FOLDER_MODE = 0o644, 0o755  # every program may read them


def write(path: str, text: str) -> bool:
    """Returns True if the file was written, False if it had this text already. Raises OSError."""
    data = text.encode()
    with contextlib.suppress(OSError):
        if smallfile.read(path) == data:
            return False
    statefile.replace(os.path.abspath(path), data, MODE, FOLDER_MODE)
    return True


def remove(path: str) -> None:
    """Removes the file; a missing one is not an error. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
