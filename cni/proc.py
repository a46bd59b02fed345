"""Execution of other programs. It is the only user of subprocess, which is loaded only then (7 to 15 ms)."""

from __future__ import annotations

import posix as os  # see cni/__init__.py

from cni.protocol.record import Record
from cni.protocol.request import is_plugin_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

S_IFMT, S_IFREG = 0o170000, 0o100000  # inode(7)
# A runtime may set no PATH.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CompletedProcess(Record):
    """The result of a program; `status` is negative for a signal."""

    status: int
    stdout: bytes
    stderr: bytes


def find(name: str, path: str) -> str | None:
    """Returns the first executable regular file of that name in a colon-separated path; None if there is none, or if
    the name leads out of the folders.
    """
    if not is_plugin_name(name):
        return None
    for folder in path.split(":"):
        candidate = f"{folder}/{name}"
        if folder and _is_program(candidate):
            return candidate
    return None


def find_system(name: str, environment: Mapping[str, str]) -> str | None:
    """Returns a program of the system, found in PATH and then in SYSTEM_PATH; None if there is none."""
    return find(name, f"{environment.get('PATH', '')}:{SYSTEM_PATH}")


def _is_program(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return mode & S_IFMT == S_IFREG and os.access(path, os.X_OK)


def run(argv: list[str], data: bytes, environment: Mapping[str, str], capture_stderr: bool) -> CompletedProcess:
    """Runs a program and waits for it. It inherits stderr unless `capture_stderr`. Raises OSError."""
    import subprocess

    completed = subprocess.run(
        argv,
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if capture_stderr else None,
        env=environment,
        check=False,
    )
    return CompletedProcess(completed.returncode, completed.stdout, completed.stderr or b"")
