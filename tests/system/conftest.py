"""The machine, the peers and podwire's own programs as the system tests see them."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.diag import install
from tests.machine import Machine, missing
from tests.system.nodes import Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.nodes import Node

CHECKOUT = Path(__file__).parents[2]
NAMES = {"podwire", "podwired", *install.NAMES}


HOSTS = ["root", "rootless"]
USUAL = HOSTS[os.geteuid() != 0]


def new_machine(host: str) -> Machine:
    """Returns a host of one of HOSTS; skips the test where it cannot be had."""
    if host == "root" and os.geteuid() != 0:
        pytest.skip("needs root: network namespaces without a user namespace")
    if reason := missing(user_namespace=host == "rootless"):
        pytest.skip(reason)
    return Machine(user_namespace=host == "rootless")


@pytest.fixture(params=HOSTS)
def each_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Yields a host of its own, once as root and once in a user namespace."""
    with new_machine(request.param) as machine:
        yield machine


@pytest.fixture
def machine(each_machine: Machine) -> Machine:
    return each_machine


@pytest.fixture(scope="session")
def peers() -> Path:
    """Returns the folder of cnitool and the reference plugins, which hack/peers fills."""
    where = subprocess.run([CHECKOUT / "hack/peers", "--where"], capture_output=True, text=True, check=True)
    folder = Path(where.stdout.strip())
    absent = [name for name in ("cnitool", "bridge", "host-local") if not (folder / name).exists()]
    if absent:
        pytest.skip(f"absent: {', '.join(absent)} (hack/peers brings them)")
    return folder


@pytest.fixture(scope="session")
def plugins(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder as /opt/cni/bin would be: podwire under its own name and those it stands in for."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in NAMES:
        own = bundle / name
        (folder / name).symlink_to(own if own.exists() else bundle / "podwire")
    return folder


@pytest.fixture
def usual_machine() -> Iterator[Machine]:
    """Yields a host of its own: as root one of root's, else one in a user namespace.

    A module whose tests do the same on both kinds of hosts uses it as its `machine`, to take half of the time, and
    `each_machine` for one test or two.
    """
    with new_machine(USUAL) as machine:
        yield machine


def new_cluster(machine: Machine, plugins: Path) -> Cluster:
    """Returns an underlay with etcd on it; skips the test where etcd is absent."""
    if shutil.which("etcd") is None:
        pytest.skip("absent: etcd (hack/peers brings it)")
    return Cluster(machine, plugins)


@pytest.fixture
def cluster(machine: Machine, plugins: Path) -> Iterator[Cluster]:
    """Yields an underlay with etcd on it."""
    with new_cluster(machine, plugins) as cluster:
        yield cluster


class Pair:
    """Two nodes with podwired and a pod on each, lent to tests that leave them as they found them."""

    def __init__(self, group: str, host: str, plugins: Path, backend: str) -> None:
        self.group, self._host, self._plugins, self._backend = group, host, plugins, backend
        self._nodes: tuple[Node, Node] | None = None
        self._end = ExitStack()

    @contextmanager
    def lent(self) -> Iterator[tuple[Node, Node]]:
        """Gives the nodes; those on which a test failed are not lent again."""
        if self._nodes is None:
            machine = self._end.enter_context(new_machine(self._host))
            cluster = self._end.enter_context(new_cluster(machine, self._plugins))
            cluster.configure({"Type": self._backend})
            node, other = cluster.populate(dict.fromkeys(["node", "other"], self._plugins / "podwired"))
            self._nodes = node, other
        try:
            yield self._nodes
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self._nodes = None
        self._end.close()


_PAIRS: list[Pair] = []


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Ends the pairs that the next test does not borrow: their programs would run idle beside all other tests."""
    groups = [mark.args[0] for mark in nextitem.iter_markers("xdist_group")] if nextitem else []
    for pair in _PAIRS:
        if pair.group not in groups:
            pair.end()


def pairs(name: str, backend: str, hosts: list[str]) -> Callable[[pytest.FixtureRequest, Path], Iterator[Pair]]:
    """Returns a fixture that gives a Pair on each of these hosts. One worker runs all tests of a pair."""
    groups = [pytest.param(host, marks=pytest.mark.xdist_group(f"{name} {host}")) for host in hosts]

    @pytest.fixture(scope="session", params=groups)
    def pair(request: pytest.FixtureRequest, plugins: Path) -> Iterator[Pair]:
        pair = Pair(f"{name} {request.param}", request.param, plugins, backend)
        _PAIRS.append(pair)
        yield pair
        _PAIRS.remove(pair)
        pair.end()

    return pair


vxlan_pair, host_gw_pair = pairs("vxlan", "vxlan", HOSTS), pairs("host-gw", "host-gw", HOSTS)
usual_pair = pairs("usual", "vxlan", [USUAL])


@pytest.fixture(scope="session")
def podwired(plugins: Path) -> Path:
    """Returns podwire's node agent."""
    return plugins / "podwired"


@pytest.fixture(scope="session")
def flanneld(peers: Path) -> Path:
    """Returns the reference of node agents."""
    program = peers / "flanneld"
    if not program.exists():
        pytest.skip("absent: flanneld (hack/peers brings it)")
    return program
