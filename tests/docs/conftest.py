"""A shell on a node of its own, in a checkout whose changes are lost, for the commands of the documents."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.docs.documents import ROOT
from tests.machine import Machine, missing
from tests.namespaces import cover
from tests.system.conftest import peers, plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


__all__ = ["peers", "plugins"]  # fixtures of the system tests


def shell(machine: Machine, commands: str, *, path: str = "", seconds: float = 300.0) -> str:
    """Runs commands in the checkout on a node and returns what they printed. Raises MachineError if one fails."""
    environment = {"PATH": f"{path}:{os.environ['PATH']}"} if path else {}
    script = f"cd {ROOT}\n{commands}"
    return machine.run("bash", "-euxo", "pipefail", "-c", script, env=environment, seconds=seconds).stdout


@pytest.fixture(scope="session")
def built(bundle: Path) -> Path:
    """Returns the bundle; hack/build has an archive of the same source, so it does not build again."""
    done = subprocess.run([ROOT / "hack/build"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        pytest.skip("hack/build made no bundle; its message says what is missing")
    return bundle


def new_node() -> Machine:
    """Returns a node; skips the test where it cannot be had."""
    if reason := missing():
        pytest.skip(reason)
    return Machine()


@pytest.fixture
def node(built: Path) -> Iterator[Machine]:
    del built
    with new_node() as machine:
        machine.call(cover, str(ROOT))
        yield machine
