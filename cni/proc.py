"""Running other programs: the one user of subprocess, loaded only when one has to run (it costs 7 to 15 ms)."""

from __future__ import annotations

import os

from cni.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# A runtime may give no PATH at all.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The bundle's boot loader points the loader at its own libraries and keeps the caller's value here.
ORIGINAL_LIBRARY_PATH = "LD_LIBRARY_PATH_ORIG"


class Ended(Record):
    """How a program ended; `status` is negative for a signal."""

    status: int
    stdout: bytes
    stderr: bytes


def callers_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what the bundle's boot loader put in."""
    clean = {key: value for key, value in environment.items() if not key.startswith("_PYI_")}
    if ORIGINAL_LIBRARY_PATH in clean:
        clean["LD_LIBRARY_PATH"] = clean.pop(ORIGINAL_LIBRARY_PATH)
    else:
        clean.pop("LD_LIBRARY_PATH", None)
    return clean


def find(name: str, path: str) -> str | None:
    """The first executable regular file of that name in a colon-separated path; None where there is none."""
    for folder in path.split(":"):
        candidate = os.path.join(folder, name)
        if folder and os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def run(argv: list[str], data: bytes, environment: Mapping[str, str], capture_stderr: bool) -> Ended:
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
    return Ended(done.returncode, done.stdout, done.stderr or b"")
