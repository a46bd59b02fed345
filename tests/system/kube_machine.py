"""The machine of tests against Kubernetes, as a plugin: its servers are started once for all tests of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine import Machine, missing
from tests.system.kube_server import Server, absent, binary

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Machine]:
    """Yields a machine with a wire (192.0.2.1, 2001:db8:2::1) in which the API server serves."""
    if reason := missing() or absent():
        pytest.skip(reason)
    with Machine() as machine:
        machine.outside()
        machine.call(Server(binary()).install)
        yield machine
