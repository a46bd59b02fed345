"""`python -m cni` is the executable podwire."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cni import VERSION

ROOT = Path(__file__).parents[2]


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cni", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_answers_a_runtime() -> None:
    done = call(CNI_COMMAND="VERSION")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"1.1.0"' in done.stdout


def test_it_runs_commands_and_returns_their_status() -> None:
    done = call("version")
    assert (done.returncode, done.stdout) == (0, f"podwire {VERSION}\n")
    assert call("no-such-command").returncode == 2
