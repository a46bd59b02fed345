"""The runtime's network configuration appears when the node's network works, and goes with it."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

import pytest

from tests.system.nodes import MASQUERADE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster

SOURCE, FOLDER = "/run/source/10-podwire.conflist", "/etc/cni/net.d"
PATH = f"{FOLDER}/10-podwire.conflist"
FLAGS = (f"--conflist={SOURCE}", f"--conflist-dir={FOLDER}", MASQUERADE)
FIRST = json.dumps({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}]})
SECOND = FIRST.replace("flannel", "podwire")
NONE = '{"cniVersion": "1.0.0", "name": "cbr0"}'


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


def say(machine: Machine, text: str) -> None:
    machine.run("install", "-D", "/dev/stdin", SOURCE, stdin=text)


def listed(machine: Machine) -> dict[str, str]:
    """Returns what a runtime may see in its folder."""
    names = machine.run("ls", FOLDER, check=False).stdout.split()
    return {name: machine.run("cat", f"{FOLDER}/{name}").stdout for name in names}


def test_the_runtime_is_notified_when_all_else_is_ready_and_of_every_change(cluster: Cluster, podwired: Path) -> None:
    (node,) = cluster.add("node")
    say(node, FIRST)
    agent = node.start_agent(podwired, *FLAGS, ready=False)
    node.until(lambda: node.probe("healthz")[0] == http.client.OK, "the agent runs")
    assert listed(node) == {}
    cluster.configure()
    node.until(lambda: node.probe("readyz")[0] == http.client.OK, "the agent is ready")
    assert listed(node) == {"10-podwire.conflist": FIRST}
    assert "FLANNEL_SUBNET=" in node.subnet_env()
    say(node, SECOND)
    agent.signal("HUP")
    node.until(lambda: listed(node) == {"10-podwire.conflist": SECOND}, "the change is followed")
    say(node, NONE)
    agent.signal("HUP")
    node.until(lambda: f"{SOURCE} is not a network configuration list: plugins:" in agent.log, "the fault is told")
    assert listed(node) == {"10-podwire.conflist": SECOND}
    assert node.stop_agent() == 0
    assert listed(node) == {"10-podwire.conflist": SECOND}


def test_without_a_list_the_node_is_not_ready(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    (node,) = cluster.add("node")
    say(node, NONE)
    agent = node.start_agent(podwired, *FLAGS, ready=False)
    node.until(lambda: "plugins: expected a list of plugins" in agent.log, "the fault is told")
    assert node.probe("readyz")[0] == http.client.SERVICE_UNAVAILABLE
    assert listed(node) == {}
    say(node, FIRST)
    node.until(lambda: node.probe("readyz")[0] == http.client.OK, "the agent is ready")
    assert listed(node) == {"10-podwire.conflist": FIRST}


def test_an_earlier_list_outlives_a_source_that_is_at_fault(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    (node,) = cluster.add("node")
    say(node, FIRST)
    node.start_agent(podwired, *FLAGS)
    node.stop_agent()
    say(node, NONE)
    agent = node.start_agent(podwired, *FLAGS)
    assert "plugins: expected a list of plugins" in agent.log
    assert listed(node) == {"10-podwire.conflist": FIRST}


def test_cleaning_up_takes_back_what_was_copied_and_nothing_else(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    (node,) = cluster.add("node")
    say(node, FIRST)
    node.start_agent(podwired, *FLAGS)
    node.stop_agent()
    node.run("cp", "/dev/stdin", PATH, stdin=SECOND)
    refused = node.run(str(podwired), "--cleanup", *FLAGS[:2], check=False)
    assert refused.returncode == 1
    assert f"{PATH} is not podwired's: left alone" in refused.stderr
    assert listed(node) == {"10-podwire.conflist": SECOND}
    assert "flannel.1" not in node.run("ip", "link").stdout
    node.run("cp", "/dev/stdin", PATH, stdin=FIRST)
    node.run("rm", SOURCE)
    node.run(str(podwired), "--cleanup", *FLAGS[:2])
    assert node.run("ls", "-A", FOLDER).stdout == ""
