"""The launcher: calls continue what the build has recorded, and cost a fraction of the interpreter's start."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.frozen.test_bundle import VERSION, assert_answers, call
from tests.machine import Machine, missing
from tests.rules.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BUNDLE_BYTES = 30_000_000
# Instructions of a process, of which starting the interpreter and running podwire's modules would be 25 million.
BUDGETS = {"VERSION": 850_000, "ADD": 8_500_000, "DEL": 4_000_000}
SYSTEM_CALLS = {"VERSION": 88, "ADD": 257, "DEL": 161}  # with glibc 2.36: the same at each call
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "bridge",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
}


@pytest.fixture
def memory(bundle: Path) -> Path:
    """Gives the file that is continued from."""
    path = bundle / "podwire.d/podwire.memory"
    if not path.exists():
        pytest.skip("the bundle was built without a launcher (install gcc and libpython3.11-dev)")
    return path


@pytest.fixture
def machine() -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        yield machine


def copied(bundle: Path, folder: Path) -> Path:
    """Returns a bundle whose files may be replaced: they are links."""
    shutil.copytree(bundle, folder, copy_function=os.link, symlinks=True)
    return folder


def observed(machine: Machine, observer: list[str], bundle: Path, verb: str, pod: str) -> str:
    """Returns what a program says about a call that it observes."""
    variables = {"CNI_COMMAND": verb, "CNI_CONTAINERID": pod, "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere"}
    if pod:
        variables["CNI_NETNS"] = machine.pods[pod].path
    environment = [f"{name}={value}" for name, value in variables.items()]
    call = ["env", *environment, *observer, str(bundle / "podwire")]
    done = machine.run(*call, stdin=json.dumps(NETWORK), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def instructions(machine: Machine, bundle: Path, verb: str, pod: str) -> int:
    callgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    [count] = re.findall(r"Collected : (\d+)", observed(machine, callgrind, bundle, verb, pod))
    return int(count)


def system_calls(machine: Machine, bundle: Path, verb: str, pod: str) -> int:
    lines = observed(machine, ["strace", "-f"], bundle, verb, pod).splitlines()
    return sum(re.match(r"(\[pid +\d+\] )?\w+\(", line) is not None for line in lines)


def counted(machine: Machine, count: Callable[[Machine, Path, str, str], int], bundle: Path) -> dict[str, int]:
    for name in ("pod1", "pod2"):
        machine.pod(name)
    counts = {"VERSION": count(machine, bundle, "VERSION", "")}
    count(machine, bundle, "ADD", "pod1")  # the first creates the bridge
    return counts | {verb: count(machine, bundle, verb, "pod2") for verb in ("ADD", "DEL")}


def test_a_call_takes_few_instructions(machine: Machine, bundle: Path, memory: Path) -> None:
    """A plugin that loads a module, or whose memory is not continued, takes more."""
    if not shutil.which("valgrind"):
        pytest.skip("no valgrind (hack/peers installs it)")
    assert memory.exists()
    counts = counted(machine, instructions, bundle)
    assert {verb: count for verb, count in counts.items() if count > BUDGETS[verb]} == {}


def test_a_call_makes_few_system_calls(machine: Machine, bundle: Path, memory: Path) -> None:
    """A call that opens another file or asks the kernel once more is a decision."""
    if not shutil.which("strace"):
        pytest.skip("no strace (hack/peers installs it)")
    assert memory.exists()
    counts = counted(machine, system_calls, bundle)
    assert {verb: count for verb, count in counts.items() if count > SYSTEM_CALLS[verb]} == {}


def test_the_bundle_is_small(bundle: Path) -> None:
    files = [path for path in bundle.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum([path.stat().st_size for path in files]) <= BUNDLE_BYTES


def test_nothing_of_the_build_machine_is_recorded(memory: Path) -> None:
    data = memory.read_bytes()
    for name in (str(ROOT), os.environ.get("HOME", "") + "/", os.uname().nodename):
        assert len(name) < 3 or name.encode() not in data, name


@pytest.mark.parametrize("damage", ["missing", "cut", "of another build", "not readable as memory"])
def test_a_memory_that_does_not_fit_is_not_used(bundle: Path, memory: Path, tmp_path: Path, damage: str) -> None:
    """As in the middle of an upgrade by tar: the interpreter starts by itself then."""
    data = memory.read_bytes()
    other = copied(bundle, tmp_path / "other")
    changed = other / "podwire.d/podwire.memory"
    changed.unlink()
    if damage == "cut":
        changed.write_bytes(data[: len(data) // 2])
    elif damage == "of another build":
        changed.write_bytes(b"0" * 32 + data[32:])
    elif damage == "not readable as memory":
        changed.mkdir()
    assert_answers(call(other / "podwire", VERSION))


def test_modules_of_another_build_are_not_mixed_with_the_memory(bundle: Path, memory: Path, tmp_path: Path) -> None:
    assert memory.exists()
    other = copied(bundle, tmp_path / "other")
    code = other / "podwire.d/podwire.code"
    data = code.read_bytes()
    code.unlink()
    code.write_bytes(data[:8] + b"0" * 32 + data[40:])
    assert_answers(call(other / "podwire", VERSION))


def test_the_working_directory_is_searched_for_nothing(bundle: Path, memory: Path, tmp_path: Path) -> None:
    """The record was made in the folder of the bundle, by relative paths."""
    assert memory.exists()
    hostile = tmp_path / "podwire.d"
    hostile.mkdir()
    for name in ("json", "traceback", "argparse", "_json"):
        (hostile / f"{name}.py").write_text("raise SystemExit('taken from the working directory')")
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the working directory')")
    for arguments, status in ((["install", "--help"], 0), (["install", "--bin-dir", "/proc/nowhere"], 1)):
        done = subprocess.run(
            [bundle / "podwire", *arguments], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
        assert "taken" not in done.stdout + done.stderr


def test_a_machine_without_proc_gets_a_message(machine: Machine, bundle: Path, memory: Path) -> None:
    assert memory.exists()
    script = f"mount -t tmpfs tmpfs /proc; exec {bundle}/podwire version"
    done = machine.run("unshare", "-m", "sh", "-c", script, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "podwire: /proc is not mounted\n")


def interrupted(bundle: Path, shell: str) -> tuple[int, dict[str, Any]]:
    """Returns the status and the answer of an ADD that gets SIGINT while it reads stdin, which then ends."""
    environment = VERSION | {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/x", "CNI_IFNAME": "eth0"}
    script = f'{shell} exec "$0"'
    unignored = ["env", "--default-signal=INT"]  # a shell ignores it in what it starts in the background
    with subprocess.Popen(
        [*unignored, "/bin/sh", "-c", script, bundle / "podwire"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    ) as process:
        until_reading(process.pid)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    return process.returncode, json.loads(output)


def until_reading(pid: int) -> None:
    """Waits until the process sleeps in read(2) of its stdin."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with open(f"/proc/{pid}/syscall") as file:
            fields = file.read().split()
        if fields[:2] == ["0", "0x0"]:
            return
        time.sleep(0.01)
    raise AssertionError("the plugin does not read stdin")


@pytest.mark.skipif(not os.access("/proc/self/syscall", os.R_OK), reason="the kernel does not show system calls")
def test_a_signal_interrupts_a_call_unless_it_is_ignored(bundle: Path, memory: Path) -> None:
    assert memory.exists()
    status, answer = interrupted(bundle, "")
    assert (status, answer["code"]) == (1, 11)
    status, answer = interrupted(bundle, "trap '' INT;")
    assert (status, answer["code"]) == (1, 6)  # it has read all of stdin, which is empty
