"""hack/demo: when it fails or gets a signal, it names the step, and ends all processes that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.machine import missing, until

DEMO = Path(__file__).parents[2] / "hack/demo"
MARK = "PODWIRE_TEST_DEMO"
AGENT = """#!/bin/sh
while [ "$1" != --subnet-file ]; do shift; done
echo "node agent" > "$2"
exec sleep 300
"""


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


def start(folder: Path, plugin: str) -> subprocess.Popen[str]:
    """The demo of an agent that only stays, and of this plugin; what it starts bears a mark."""
    program(folder / "podwired", AGENT)
    program(folder / "podwire", plugin)
    environment = {**os.environ, MARK: str(folder), "PODWIRE_BUNDLE": str(folder)}
    return subprocess.Popen(
        ["env", "--default-signal=INT,TERM,HUP", DEMO],
        env=environment,
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


def test_a_step_that_fails_is_named_and_agents_end(tmp_path: Path) -> None:
    with start(tmp_path, "#!/bin/sh\necho out of order >&2\nexit 3\n") as demo:
        _, output = demo.communicate(timeout=120)
    assert demo.returncode == 3
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
