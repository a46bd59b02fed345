"""Fixtures that restore the process's state after every unit test, and keep the host's lock out of it."""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest

import ipam
from cni import config, main, plan, protocol
from cni.agent import dataplane, model, policy
from cni.agent.stores.watchloop import Backoff
from cni.kernel.hostlock import HostLock
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


# These test no pure package: messages of the kernel, files, stores, logs. Measuring takes twice the time of a test.
UNMEASURED = (
    "test_agent_drift", "test_agent_health", "test_agent_logs", "test_agent_options", "test_agent_static", "test_etcd_",
    "test_growth", "test_ipam_boot", "test_ipam_index", "test_ipam_store", "test_kube_", "test_netlink", "test_nflog",
    "test_nft_load", "test_nft_oracle", "test_policy_files", "test_remedies", "test_rtnl_", "test_store_",
    "test_tc_oracle", "test_yamltext",
)  # fmt: skip


def pytest_collection_finish() -> None:
    """Loads the pure packages while that is measured: the first test that needs a module may be one of UNMEASURED."""
    for package in (config, dataplane, model, plan, policy, protocol, ipam):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.name.startswith(UNMEASURED):
        item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Lets nothing trace a test that is marked no_cover. In a process of pytest-xdist, pytest-cov measures twice, and
    pauses only the second measurement: the first goes on, which takes such a test four times as long.
    """
    trace = sys.gettrace()
    if item.get_closest_marker("no_cover"):
        sys.settrace(None)
    yield
    sys.settrace(trace)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A call of the plugin takes the signals over for the rest of its process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _no_lock_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the lock of the host's network namespace alone: an ordinary user cannot open it."""
    monkeypatch.setattr(HostLock, "lock_shared", lambda _: None)


@pytest.fixture(autouse=True)
def _no_events_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves no lines of the calls that fail here among those of the host's runtime."""
    monkeypatch.setattr(main, "_log", lambda *_: None)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Machine]:
    """Gives a host that all tests of a module share."""
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        yield machine


@pytest.fixture
def machine(kernel: Machine) -> Machine:
    """Gives that host without any nftables rules."""
    kernel.run("nft", "flush", "ruleset")
    return kernel


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Records how long stores would have paused after failures; they do not pause."""
    recorded: list[float] = []
    original = Backoff.next

    def record(backoff: Backoff, error: Exception | None = None) -> float:
        recorded.append(original(backoff, error))
        return 0.0

    monkeypatch.setattr(Backoff, "next", record)
    return recorded


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the pauses after a failed watch of Kubernetes."""
    from cni.agent.stores.kube import watch  # which needs urllib3, unlike most tests

    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watch, "LONGEST_PAUSE", 0.1)
