"""The start of this host: containers do not survive a restart, leases on disk do."""

from __future__ import annotations

import posix as os  # see cni/__init__.py

PROC = "/proc"


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return (file.read() or b"").decode("ascii", "replace")


def boot_time() -> int | None:
    """Returns the start of PID 1 in ns of the wall clock; None if /proc does not have it.

    PID 1 counts, not the kernel: in a node that is a container itself, pods die with the node's init. proc(5): btime of
    /proc/stat in whole seconds, so the answer is up to 1 s early and never late; field 22 of /proc/1/stat in ticks.
    """
    try:
        ticks = int(_read(f"{PROC}/1/stat").rpartition(")")[2].split()[19])
        btime = int(_read(f"{PROC}/stat").partition("\nbtime ")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return btime * 1_000_000_000 + ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
