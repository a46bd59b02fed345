"""Fixtures that several folders share: the bundle as it lies in a CNI bin folder, and the summary of skips."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.remedies import summed_up

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.terminal import TerminalReporter

BUILD = Path(__file__).parents[1] / "hack/build"
PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # nft and tc are there, which an ordinary user's PATH lacks


def pytest_configure() -> None:
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([*path, *(folder for folder in PROGRAMS if folder not in path)])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Looks for no garbage while thousands of tests are found, which takes half of that time, and later for none among
    what stays until the end.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Lets go of what a test held that failed, so that what it leaked is told of it and not of the test after it."""
    if not hasattr(sys, "last_value"):
        return
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    gc.collect()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> Generator[None]:
    """Says after all else what would have to be done for the tests that were skipped."""
    yield
    reports = terminalreporter.stats.get("skipped", [])
    reasons = [report.longrepr[2] for report in reports if isinstance(report.longrepr, tuple)]
    if line := summed_up(reasons):
        terminalreporter.write_line(line)


NAMED = os.environ.get("PODWIRE_BUNDLE", "").split(":")


@pytest.fixture(scope="session", params=NAMED if len(NAMED) > 1 else None)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder with the executable podwire: PODWIRE_BUNDLE names one already built, else it is built now.

    Of several, parted by colons (one for each Python), each is tested.
    """
    if named := getattr(request, "param", NAMED[0]):
        return Path(named).absolute()
    built = subprocess.run([BUILD], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        pytest.skip("hack/build made no bundle; its message says what is missing")
    folder = tmp_path_factory.mktemp("bundle")
    subprocess.run(["tar", "-xzf", built.stdout.strip(), "-C", folder], check=True)
    return folder
