"""podwired comes and goes while pods talk: the data plane stays, until it is told to clean up."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.machine import until
from tests.system.nodes import MASQUERADE, SUBNET_ENV
from tests.system.overlay import lossless, seen
from tests.system.programs import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster, Node

BACKENDS = ["vxlan", "host-gw"]
KILLED = -9
MONITORS = {
    "links, addresses, routes, rules": "ip monitor link address route rule",
    "neighbours": "ip monitor neigh",
    "FDB": "bridge monitor fdb",
    "rules": "nft monitor",
}
BY_ITSELF = ("REACHABLE", "STALE", "DELAY", "PROBE", "INCOMPLETE", "FAILED", "fe80::", "valid_lft")
# Each is told by one of the monitors, and is no change that an agent makes.
SIGNS = """
ip address {verb} 192.0.2.{number}/32 dev lo
ip neighbour {verb} 192.0.2.{number} lladdr 02:00:00:00:00:01 nud permanent dev eth0
bridge fdb {verb} 02:00:00:00:01:{number} dev cni0 self permanent
nft {verb} table ip sign{number}
"""


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@contextmanager
def unchanged(node: Node) -> Iterator[None]:
    """Asserts that the kernel tells of no change meanwhile, not even of one that is no difference."""
    monitors = [Program(node, f"monitor{number}", *command.split()) for number, command in enumerate(MONITORS.values())]
    numbers = count(10)

    def heard() -> bool:
        """Signs are given until all listen."""
        number = next(numbers)
        for verb in ("add", "delete"):
            node.run("sh", "-ec", SIGNS.format(verb=verb, number=number))
        return all(str(number) in monitor.log for monitor in monitors)

    until(heard, "all monitors listen")
    before = [len(monitor.log) for monitor in monitors]
    yield
    after = [monitor.log for monitor in monitors]
    for monitor in monitors:
        monitor.end()
    lines = [line for log, start in zip(after, before, strict=True) for line in log[start:].splitlines()]
    assert [line for line in lines if is_change(line)] == []


def is_change(line: str) -> bool:
    """Neighbours on wires come and go by themselves, and link-local addresses some time after their link."""
    return not any(word in line for word in BY_ITSELF)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restart_loses_no_packet_and_changes_nothing(cluster: Cluster, podwired: Path, backend: str) -> None:
    cluster.configure({"Type": backend})
    node, other = cluster.populate({"node": podwired, "other": podwired})
    before, lease = seen(node), node.lease()
    with lossless(node.guest, other.guest), lossless(other.guest, node.guest), unchanged(node):
        for signal in ("TERM", "KILL", "INT"):
            assert node.stop_agent(signal) == (KILLED if signal == "KILL" else 0)
            assert seen(node) == before, signal
            node.start_agent(podwired, MASQUERADE)
            assert cluster.is_whole(), signal
            assert (seen(node), node.lease()) == (before, lease), signal


def test_a_restart_of_both_families_changes_nothing(cluster: Cluster, podwired: Path) -> None:
    cluster.configure(families=(4, 6))
    node, other = cluster.populate({"node": podwired, "other": podwired})
    before, lease = seen(node), node.lease()
    with lossless(node.guest, other.guest, 6), unchanged(node):
        node.stop_agent()
        node.start_agent(podwired, MASQUERADE)
    assert (seen(node), node.lease()) == (before, lease)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_changed_while_the_agent_was_away_is_made_up_for(cluster: Cluster, podwired: Path, backend: str) -> None:
    cluster.configure({"Type": backend})
    node, other, gone = cluster.populate(dict.fromkeys(["node", "other", "gone"], podwired))
    (key, _), gone_address = gone.lease(), gone.address()
    subnet = gone.subnet().partition("/")[0]
    assert seen(node).of(f'"{gone_address}"', f'"{subnet}')
    node.stop_agent("KILL")
    gone.stop_agent("KILL")
    cluster.etcd.delete(f"subnets/{key}")
    (new,) = cluster.add("new")
    new.start_agent(podwired, MASQUERADE)
    node.start_agent(podwired, MASQUERADE)
    new.attach()
    del cluster.nodes["gone"]
    cluster.until(cluster.is_whole, "the new node's pod is reached")
    lines = seen(node).of(f'"{gone_address}"', f'"{subnet}')
    assert [line for line in lines if new.subnet().partition("/")[0] not in line] == []
    assert other.guest.reaches(node.guest)


@pytest.mark.parametrize(("backend", "families"), [("vxlan", (4,)), ("vxlan", (4, 6)), ("host-gw", (4, 6))])
def test_a_cleanup_leaves_nothing(cluster: Cluster, podwired: Path, backend: str, families: tuple[int, ...]) -> None:
    cluster.configure({"Type": backend}, families)
    node, other = cluster.add("node", "other")
    other.start_agent(podwired, MASQUERADE)
    before = seen(node)
    files = node.files("/run/flannel", "/run/podwire", "/var/lib")
    node.start_agent(podwired, MASQUERADE)
    subnet = other.subnet()
    cluster.until(lambda: seen(node).of(f'"{subnet}"'), "the other node is known")
    node.stop_agent()
    assert seen(node) != before
    for _ in range(2):
        node.run(str(podwired), "--cleanup")
        assert seen(node) == before
        assert node.run("test", "-e", SUBNET_ENV, check=False).returncode == 1
    left = node.files("/run/flannel", "/run/podwire", "/var/lib")
    assert [line for line in left if line not in files and line != "/run/flannel/"] == []
