"""The locks that a podwired holds while it runs: the kernel releases them with the process."""

from __future__ import annotations

from fcntl import LOCK_NB, LOCK_SH, flock


def is_held(path: str) -> bool:
    """Returns True for a lock that a process holds, and for one that cannot be examined."""
    try:
        with open(path, "rb") as file:
            flock(file, LOCK_SH | LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
