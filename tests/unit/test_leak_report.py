"""A test that fails and leaks is the one that is blamed for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = """
def test_leaks_and_fails():
    leaked = open(__file__)
    ring = [leaked]
    ring.append(ring)
    assert not leaked

def test_innocent():
    pass
"""


def test_what_a_failed_test_leaks_is_not_reported_for_the_next(tmp_path: Path) -> None:
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-W", "error", "-rA", f"--rootdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, suite],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = done.stdout.partition("short test summary info")[2]
    assert "PASSED test_suite.py::test_innocent" in summary
    assert "FAILED test_suite.py::test_leaks_and_fails - AssertionError" in summary
    assert "ERROR test_suite.py::test_leaks_and_fails" in summary
