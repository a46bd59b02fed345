"""Hosts for the tests that need a kernel: one of its own for each test, with the runtime that calls podwire on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine import Machine, missing
from tests.netns.forwarding import crossing
from tests.netns.runtime import Node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.netns.forwarding import World


@pytest.fixture(autouse=True, scope="session")
def _kernel() -> None:
    """Skips where no namespaces can be had: as root, in `unshare -Urnm`, or as a user who may make user namespaces."""
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Yields a host of its own."""
    with Machine() as machine:
        yield machine


@pytest.fixture
def node(machine: Machine) -> Node:
    """Returns a runtime on that host."""
    return Node(machine)


@pytest.fixture
def world(machine: Machine, node: Node) -> World:
    """Returns two containers on different bridges of that host, and another host that knows the way to them."""
    return crossing(machine, node)
