"""Calls of the built bundle, each a process of its own, a few at a time: what users run is what is asked.

In one process with the tests much is loaded that a plugin never loads, and hides what it lacks.

An ordinary user's calls run in a machine, as its root: the lock of the host's network namespace is root's alone.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pytest

from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

T = TypeVar("T")

NOWHERE = "/nowhere/netns"
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": NOWHERE,
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/nowhere",
}
NETWORK = {"cniVersion": "1.1.0", "name": "net", "type": "podwire"}
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
        """The one object on stdout: a line of ASCII that the strictest reader takes."""
        assert self.stdout.isascii()
        assert self.stdout.endswith(b"\n")
        answer = json.loads(self.stdout, parse_constant=refuse_constant)
        json.dumps(answer, ensure_ascii=False).encode()  # fails on half a surrogate pair
        assert isinstance(answer, dict)
        return answer

    @property
    def error(self) -> tuple[int, str]:
        """(code, message) of a failure."""
        answer = self.answer
        assert self.status == 1
        assert answer["cniVersion"] == "1.1.0"
        return answer["code"], answer["msg"]


def refuse_constant(name: str) -> None:
    raise ValueError(name)


def as_root(function: Callable[..., T], *arguments: object) -> T:
    """Returns what the function does, called here by root, else in the machine of these tests."""
    return function(*arguments) if os.geteuid() == 0 else _machine().call(function, *arguments)


@cache
def _machine() -> Machine:
    """Skips the test where no machine can be had. The machine ends with the tests."""
    if reason := missing():
        pytest.skip(reason)
    machine = Machine().__enter__()
    atexit.register(machine.__exit__)
    return machine


def run(bundle: Path, one: Call, limits: Mapping[int, int] | None = None) -> CompletedProcess:
    """One call; `limits` are of setrlimit(2)."""
    return as_root(_run, bundle, one, limits)


def run_all(bundle: Path, calls: Iterable[Call]) -> list[CompletedProcess]:
    """Runs the calls, a few at a time, and returns how each ended, in order."""
    return as_root(_run_all, bundle, calls)


def _run(bundle: Path, one: Call, limits: Mapping[int, int] | None = None) -> CompletedProcess:
    def limit() -> None:
        for number, value in (limits or {}).items():
            resource.setrlimit(number, (value, value))

    done = subprocess.run(
        [f"/opt/cni/bin/{one.program}"],
        executable=bundle / "podwire",
        input=one.data,
        env=dict(one.environment),
        capture_output=True,
        check=False,
        timeout=SECONDS,
        preexec_fn=limit if limits else None,
    )
    return CompletedProcess(done.returncode, done.stdout, done.stderr)


def _run_all(bundle: Path, calls: Iterable[Call]) -> list[CompletedProcess]:
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda one: _run(bundle, one), calls))


def call(document: object, environment: Mapping[str, str] | None = None, program: str = "podwire") -> Call:
    """An ADD into a namespace that is not there, changed by `environment`."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Call(data, ENVIRONMENT | dict(environment or {}), program)
