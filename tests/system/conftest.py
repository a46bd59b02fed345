"""The machine, the peers and podwire's own programs as the system tests see them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import install
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
NAMES = ("podwire", *install.NAMES)


@pytest.fixture(params=["root", "rootless"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Give a host of its own, once as root and once in a user namespace."""
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("needs root: network namespaces without a user namespace")
    if reason := missing(user_namespace=request.param == "rootless"):
        pytest.skip(reason)
    with Machine(user_namespace=request.param == "rootless") as machine:
        yield machine


@pytest.fixture(scope="session")
def peers() -> Path:
    """Give the folder of cnitool and the reference plugins, which hack/peers fills."""
    where = subprocess.run([CHECKOUT / "hack/peers", "--where"], capture_output=True, text=True, check=True)
    folder = Path(where.stdout.strip())
    absent = [name for name in ("cnitool", "bridge", "host-local") if not (folder / name).exists()]
    if absent:
        pytest.skip(f"absent: {', '.join(absent)} (hack/peers brings them)")
    return folder


@pytest.fixture(scope="session")
def plugins(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder as /opt/cni/bin would be: podwire under its own name and those it stands in for."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in NAMES:
        own = bundle / name
        (folder / name).symlink_to(own if own.exists() else bundle / "podwire")
    return folder
