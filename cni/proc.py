"""Running other programs: the one user of subprocess, loaded only when one has to run (it costs 7 to 15 ms)."""

from __future__ import annotations

import posix as os  # see cni/__init__.py

from cni.protocol.record import Record
from cni.protocol.request import is_plugin_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

S_IFMT, S_IFREG = 0o170000, 0o100000  # inode(7)
# A runtime may give no PATH at all.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CompletedProcess(Record):
    """How a program ended; `status` is negative for a signal."""

    status: int
    stdout: bytes
    stderr: bytes


def find(name: str, path: str) -> str | None:
    """The first executable regular file of that name in a colon-separated path; None where there is none, and for a
    name that leads out of the folders.
    """
    if not is_plugin_name(name):
        return None
    for folder in path.split(":"):
        candidate = f"{folder}/{name}"
        if folder and _is_program(candidate):
            return candidate
    return None


def find_system(name: str, environment: Mapping[str, str]) -> str | None:
    """A program of the system, by PATH and then where systems keep them."""
    return find(name, f"{environment.get('PATH', '')}:{SYSTEM_PATH}")


def _is_program(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return mode & S_IFMT == S_IFREG and os.access(path, os.X_OK)


def run(argv: list[str], data: bytes, environment: Mapping[str, str], capture_stderr: bool) -> CompletedProcess:
    """Runs a program to its end. Its stderr is ours unless it is captured. Raises OSError."""
    import subprocess

    done = subprocess.run(
        argv,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if capture_stderr else None,
        env=environment,
        check=False,
    )
    return CompletedProcess(done.returncode, done.stdout, done.stderr or b"")
