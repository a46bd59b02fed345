"""podwired that has nothing to do: none of its threads is woken, while it follows files and enforces policies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.system.test_agent_policy import CLOSED, Shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster

QUIET_SECONDS = 5.0  # that is five looks at a file, were it looked at once a second
SWITCHES = "cat /proc/$(pgrep -nx podwired)/task/*/status | awk '/ctxt_switches/ { sum += $2 } END { print sum }'"


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


def test_an_idle_agent_is_never_woken(cluster: Cluster, podwired: Path) -> None:
    """The kernel tells of neighbours that age after the traffic before: so there is a moment without any wake."""
    shop = Shop(cluster, podwired)
    for name in ("db", "web"):
        shop.attach(shop.node, name)
    shop.write()
    shop.apply(CLOSED)
    shop.until("web", set())
    woken = []
    for _ in range(24):
        before = int(shop.node.run("sh", "-c", SWITCHES).stdout)
        time.sleep(QUIET_SECONDS)
        woken.append(int(shop.node.run("sh", "-c", SWITCHES).stdout) - before)
        if woken[-1] == 0:
            break
    assert woken[-1] == 0, woken
    shop.apply()  # it was idle, and still listens
    shop.until("web", {"db"})
