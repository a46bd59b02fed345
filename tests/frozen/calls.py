"""Calls of the built bundle, each a process of its own, a few at a time: the tests call what users run.

In one process with the tests much is loaded that a plugin never loads, and hides what it lacks.

They run in a machine, as its root: the lock of the host's network namespace is root's alone, and calls that fail leave
their lines there.
"""

from __future__ import annotations

import atexit
import os
import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest

from tests.calls import ENVIRONMENT, encode, error_object, parse_answer
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

T = TypeVar("T")

PROGRAMS = [
    "podwire",
    "bridge",
    "ptp",
    "host-local",
    "portmap",
    "bandwidth",
    "firewall",
    "tuning",
    "loopback",
    "flannel",
]
AT_A_TIME = 2 * (os.cpu_count() or 1)
SECONDS = 60  # until a call counts as hanging, on a busy machine


class Call(NamedTuple):
    """`environment` is the whole one, names and values in bytes where they are no UTF-8."""

    data: bytes
    environment: Mapping[str, str]
    program: str = "podwire"


class CompletedProcess(NamedTuple):
    """The result of a call."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def answer(self) -> dict[str, Any]:
        """The one object on stdout."""
        return parse_answer(self.stdout)

    @property
    def error(self) -> tuple[int, str]:
        """(code, message) of a failure."""
        return error_object(self.status, self.answer)


def as_root(function: Callable[..., T], *arguments: object) -> T:
    """Returns what the function does, called in the machine of these tests."""
    return _machine().call(function, *arguments)


@cache
def _machine() -> Machine:
    """Skips the test where no machine can be had. The machine ends with the tests."""
    if reason := missing():
        pytest.skip(reason)
    machine = Machine().__enter__()
    atexit.register(machine.__exit__)
    return machine


def run(bundle: Path, call: Call, limits: Mapping[int, int] | None = None) -> CompletedProcess:
    """Runs one call; `limits` are of setrlimit(2)."""
    return as_root(_run, bundle, call, limits)


def run_all(bundle: Path, calls: Iterable[Call]) -> list[CompletedProcess]:
    """Runs the calls, a few at a time, and returns their results in order."""
    return as_root(_run_all, bundle, calls)


def _run(bundle: Path, call: Call, limits: Mapping[int, int] | None = None) -> CompletedProcess:
    def limit() -> None:
        for number, value in (limits or {}).items():
            resource.setrlimit(number, (value, value))

    done = subprocess.run(
        [f"/opt/cni/bin/{call.program}"],
        executable=bundle / "podwire",
        input=call.data,
        env=dict(call.environment),
        capture_output=True,
        check=False,
        timeout=SECONDS,
        preexec_fn=limit if limits else None,
    )
    return CompletedProcess(done.returncode, done.stdout, done.stderr)


def _run_all(bundle: Path, calls: Iterable[Call]) -> list[CompletedProcess]:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda call: _run(bundle, call), calls))


def call(document: object, environment: Mapping[str, str] | None = None, program: str = "podwire") -> Call:
    """Returns an ADD into a namespace that is not there, changed by `environment`."""
    return Call(encode(document), ENVIRONMENT | dict(environment or {}), program)
