"""The command line of `podwire`, and calls with hardly any memory or descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING

import pytest

from cni import VERSION
from tests.calls import NETWORK
from tests.frozen.calls import call, run

if TYPE_CHECKING:
    from pathlib import Path


def typed(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], env={}, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_is_reported(bundle: Path, word: str) -> None:
    done = typed(bundle / "podwire", word)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: podwire install --bin-dir DIR")


@pytest.mark.parametrize("word", ["--version", "version"])
def test_the_version_is_reported(bundle: Path, word: str) -> None:
    done = typed(bundle / "podwire", word)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"podwire {VERSION}\n", "")


@pytest.mark.parametrize("word", ["unpack", "--verbose", "", "\udcff"])
def test_an_unknown_command_is_refused(bundle: Path, word: str) -> None:
    done = typed(bundle / "podwire", word)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"podwire: unknown command {word!r} (available: check, ")


COMMANDS = [
    ["ps"],
    ["leases"],
    ["check"],
    ["events"],
    ["policy"],
    ["policy", "why"],
    ["policy", "show"],
    ["completion"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_of_the_bundle_has_its_help(bundle: Path, command: list[str]) -> None:
    done = typed(bundle / "podwire", *command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: podwire {' '.join(command)}")
    assert "Examples:\n" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_the_command_line(bundle: Path, shell: str) -> None:
    variable = "_PODWIRE_COMPLETE"
    script = typed(bundle / "podwire", "completion", shell)
    assert (script.returncode, script.stderr) == (0, "")
    assert f"{variable}={shell}_complete" in script.stdout
    shell_variables = {"COMP_WORDS": "podwire policy w", "COMP_CWORD": "w" if shell == "fish" else "2"}
    environment = {variable: f"{shell}_complete", **shell_variables}
    done = subprocess.run([bundle / "podwire"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "why" in done.stdout
    assert "show" not in done.stdout


def test_without_an_agent_a_question_has_no_answer(bundle: Path, tmp_path: Path) -> None:
    done = typed(bundle / "podwire", "policy", "why", "shop/web", "[fd00::1]:80", "--socket", f"{tmp_path}/none")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"podwire: {tmp_path}/none: No such file or directory")


@pytest.mark.parametrize("word", ["help", "version", "install", "completion bash", "policy --help"])
def test_people_without_stdout_get_a_status(bundle: Path, tmp_path: Path, word: str) -> None:
    folder = f"--bin-dir {tmp_path}" if word in ("help", "version", "install") else ""
    script = f'exec "$0" {word} {folder} >&-'
    done = subprocess.run(["sh", "-c", script, bundle / "podwire"], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "podwire: cannot write the answer: Bad file descriptor\n")


def test_a_reader_that_has_enough_is_no_error(bundle: Path) -> None:
    """As `podwire help | head`: the status is that of the command."""
    reading, writing = os.pipe()
    os.close(reading)
    for word, status in (("help", 0), ("lint", 1)):
        arguments = [word, "/dev/null"] if status else [word]
        with open(writing, "wb", closefd=False) as pipe:
            done = subprocess.run([bundle / "podwire", *arguments], stdout=pipe, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (status, b"")
    os.close(writing)


@pytest.mark.parametrize("word", ["--help", "-h", "--version"])
def test_the_agent_tells_as_well(bundle: Path, word: str) -> None:
    done = typed(bundle / "podwired", word)
    assert (done.returncode, done.stderr) == (0, "")
    assert "podwired" in done.stdout


ROUTED = {"mode": "routed", "ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": "/proc/nowhere"}}


@pytest.mark.parametrize("program", ["podwire", "host-local", "tuning", "flannel", "loopback"])
@pytest.mark.parametrize("limit", range(3, 12))
def test_few_descriptors_are_no_defect(bundle: Path, program: str, limit: int) -> None:
    """Below 5 descriptors the dynamic loader or the interpreter may fail: with a message on stderr, and no stdout."""
    for command in ("ADD", "DEL", "STATUS"):
        answer = call(NETWORK | ROUTED, {"CNI_COMMAND": command, "CNI_NETNS": "/proc/1/ns/net"}, program)
        ended = run(bundle, answer, {resource.RLIMIT_NOFILE: limit})
        if limit < 5 and ended.status in (127, 255):
            assert ended.stdout == b""
        elif ended.status or ended.stdout:
            code, message = ended.error
            assert code != 999
            assert "internal error" not in message
        assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("mebibytes", [14, 16, 18, 20, 24])
def test_little_memory_is_no_defect(bundle: Path, mebibytes: int) -> None:
    """With less memory the interpreter itself does not start."""
    for program in ("podwire", "host-local"):
        answer = call(NETWORK | {"x": "y" * 4_000_000}, {}, program)
        ended = run(bundle, answer, {resource.RLIMIT_AS: mebibytes << 20})
        if ended.stdout:
            assert ended.error[0] != 999
        else:
            assert ended.status not in (0, 1), ended.stderr
