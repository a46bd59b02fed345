"""The machine, the peers and podwire's own programs as the system tests see them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.diag import install
from tests.machine import Machine, missing
from tests.system.nodes import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
NAMES = {"podwire", "podwired", *install.NAMES}


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


@pytest.fixture
def cluster(machine: Machine, plugins: Path) -> Iterator[Cluster]:
    """Give a wire with etcd on it."""
    if shutil.which("etcd") is None:
        pytest.skip("absent: etcd (hack/peers brings it)")
    with Cluster(machine, plugins) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def podwired(plugins: Path) -> Path:
    """Give podwire's node agent."""
    return plugins / "podwired"


@pytest.fixture(scope="session")
def flanneld(peers: Path) -> Path:
    """Give the reference of node agents."""
    program = peers / "flanneld"
    if not program.exists():
        pytest.skip("absent: flanneld (hack/peers brings it)")
    return program
