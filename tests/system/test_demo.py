"""hack/demo: when it fails or gets a signal, it names the step, and ends all processes that it has started.

Colours are for terminals, `--pause` waits for Enter, `--keep` leaves all running.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.machine import missing, until

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = Path(__file__).parents[2] / "hack/demo"
MARK = "PODWIRE_TEST_DEMO"
AGENT = """#!/bin/sh
while [ "$1" != --subnet-file ]; do shift; done
echo "node agent" > "$2"
echo "ready: pods can be attached"
exec sleep 300
"""
FAILING = "#!/bin/sh\necho out of order >&2\nexit 3\n"
FAILED = 3  # its exit status
PAUSES_UNTIL_ADD = 4


@pytest.fixture(autouse=True)
def _kernel() -> None:
    if reason := missing():
        pytest.skip(reason)


def test_all_that_is_attended_ends_with_its_script(tmp_path: Path) -> None:
    """Pipelines and background processes end, too: a signal may come at any moment."""
    reached = tmp_path / "reached"
    script = tmp_path / "script"
    program(
        script,
        f"""#!/usr/bin/env bash
set -euo pipefail
me=script
. {DEMO.parent}/common.sh
end_with() {{ rm {reached}; }}
work() {{ sleep 300 & touch {reached}; sleep 300 | cat; }}
attend work
""",
    )
    with subprocess.Popen([script], env={**os.environ, MARK: str(tmp_path)}, stderr=subprocess.DEVNULL) as running:
        until(lambda: len(marked(tmp_path)) >= 4 and reached.exists(), "all run")
        running.terminate()
    assert running.returncode == 128 + signal.SIGTERM
    assert not reached.exists()
    until(lambda: not marked(tmp_path), "all have ended")


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def environment(folder: Path, plugin: str) -> dict[str, str]:
    """The environment for a demo of an agent that only stays, and of this plugin; what it starts bears a mark."""
    program(folder / "podwired", AGENT)
    program(folder / "podwire", plugin)
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return {**inherited, MARK: str(folder), "PODWIRE_BUNDLE": str(folder)}


def start(folder: Path, plugin: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["env", "--default-signal=INT,TERM,HUP", DEMO, *options],
        env=environment(folder, plugin),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def marked(folder: Path) -> list[str]:
    """Returns the processes that a demo has started and that still run."""
    wanted, pids = f"{MARK}={folder}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                pids.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return pids


@pytest.mark.parametrize("options", [(), ("--keep",)], ids=["removed", "kept"])
def test_a_step_that_fails_is_named_and_agents_end(tmp_path: Path, options: tuple[str, ...]) -> None:
    with start(tmp_path, FAILING, *options) as demo:
        _, output = demo.communicate(timeout=120)
    assert demo.returncode == FAILED
    assert "out of order" in output
    assert "failed (status 3) in the step: ADD" in output.splitlines()[-1]
    until(lambda: not marked(tmp_path), "all have ended")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_demo_and_its_agents(tmp_path: Path, number: signal.Signals) -> None:
    """Also where the signal goes to the script alone, which at a terminal all get."""
    reached = tmp_path / "reached"
    with start(tmp_path, f"#!/bin/sh\ntouch {reached}\nexec sleep 300\n") as demo:
        until(reached.exists, "the first pod is attached", 60)
        assert any("sleep 300" in command for command in marked(tmp_path))
        demo.send_signal(number)
        demo.communicate(timeout=60)
    assert demo.returncode == 128 + number
    until(lambda: not marked(tmp_path), "all have ended")


@contextmanager
def at_terminal(folder: Path, plugin: str, *options: str, **settings: str) -> Iterator[Terminal]:
    """Runs the demo as the session of a terminal of its own, and kills what is left of it."""
    ours, its = pty.openpty()
    command = ["setsid", "--ctty", str(DEMO), *options]
    variables = {**environment(folder, plugin), **settings}
    with subprocess.Popen(command, env=variables, stdin=its, stdout=its, stderr=its) as demo:
        os.close(its)
        try:
            yield Terminal(demo, ours)
        finally:
            os.close(ours)  # which ends the session: a hangup
            demo.kill()


class Terminal:
    """A terminal at which the demo runs, and the text that it shows."""

    def __init__(self, demo: subprocess.Popen[bytes], descriptor: int) -> None:
        self._demo, self._descriptor = demo, descriptor
        self.text = ""

    def read(self, seconds: float = 0.2) -> bool:
        """Takes in what comes in the next moment. Returns False once the demo has ended."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return self._demo.poll() is None
        try:
            data = os.read(self._descriptor, 1 << 16)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.text += data.decode()
        return True

    def read_to_end(self) -> int:
        deadline = time.monotonic() + 120
        while self.read():
            assert time.monotonic() < deadline, self.text[-2000:]
        return self._demo.wait(timeout=60)

    def wait_for(self, text: str, times: int) -> None:
        until(lambda: self.read() and self.text.count(text) >= times, f"it shows {text} {times} times", 120)

    def press_enter(self) -> None:
        os.write(self._descriptor, b"\n")


@pytest.mark.parametrize("setting", ["", "1"], ids=["colours", "NO_COLOR"])
def test_colours_are_for_a_terminal_and_can_be_switched_off(tmp_path: Path, setting: str) -> None:
    with at_terminal(tmp_path, FAILING, NO_COLOR=setting) as terminal:
        assert terminal.read_to_end() == FAILED
    assert "in the step: ADD" in terminal.text
    assert ("\x1b[" not in terminal.text) == bool(setting)


def test_a_paused_demo_waits_for_enter_before_each_step(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    with at_terminal(tmp_path, f"#!/bin/sh\ntouch {reached}\nexit 3\n", "--pause") as terminal:
        for pause in range(1, PAUSES_UNTIL_ADD + 1):
            terminal.wait_for("(press Enter)", pause)
            terminal.read(0.5)
            assert terminal.text.count("(press Enter)") == pause
            assert not reached.exists()
            terminal.press_enter()
        assert terminal.read_to_end() == FAILED
    assert reached.exists()
    until(lambda: not marked(tmp_path), "all have ended")


def test_a_demo_that_is_kept_runs_until_the_command_that_it_names(bundle: Path, tmp_path: Path) -> None:
    variables = {**os.environ, MARK: str(tmp_path), "PODWIRE_BUNDLE": str(bundle)}
    done = subprocess.run(
        [DEMO, "--keep"], env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    shown = done.stdout.splitlines()
    remove = shlex.split(shown[-1])
    try:
        entered = next(line for line in shown if line.endswith("ip netns exec pod1 bash"))
        command = [*shlex.split(entered), "-c", "cat </dev/tcp/10.244.2.2/8080"]
        answered = subprocess.run(command, capture_output=True, text=True, check=False)
        assert re.fullmatch(r"10\.244\.1\.\d+", answered.stdout), answered.stderr
    finally:
        subprocess.run(remove, check=True)
    until(lambda: not marked(tmp_path), "all have ended")
