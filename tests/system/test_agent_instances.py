"""Two podwireds on one node: side by side with a subnet file and a VNI each, else the second is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.system.nodes import MASQUERADE
from tests.system.overlay import seen
from tests.system.programs import Program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster, Node

OTHER_ENV = "/run/other/subnet.env"


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


class Other:
    """A second network of the same nodes, whose nodes are in a file, and its agents."""

    def __init__(self, nodes: list[Node], podwired: Path, backend: dict[str, object]) -> None:
        self.podwired = podwired
        entries = [
            {"name": node.name, "PublicIP": node.address(), "Subnet": f"10.99.{node.number + 1}.0/24"} for node in nodes
        ]
        self.file = json.dumps({"Network": "10.99.0.0/16", "Backend": backend, "nodes": entries})

    def start(self, node: Node, file: str = OTHER_ENV, *flags: str) -> Program:
        node.run("sh", "-c", "cat > /run/nodes.json <<'END'\n" + self.file + "\nEND")
        where = ["--nodes-file=/run/nodes.json", f"--node-name={node.name}", f"--subnet-file={file}"]
        return Program(node, "other", str(self.podwired), *where, "--iface=eth0", *flags)

    def run(self, node: Node, *flags: str) -> Program:
        agent = self.start(node, OTHER_ENV, *flags)
        node.until(lambda: "pods can be attached" in agent.log, "the second agent is ready")
        return agent


SECOND: list[dict[str, object]] = [{"Type": "vxlan", "VNI": 2}, {"Type": "host-gw"}]


@pytest.mark.parametrize("backend", SECOND, ids=["vxlan", "host-gw"])
def test_two_networks_live_side_by_side(cluster: Cluster, podwired: Path, backend: dict[str, object]) -> None:
    """Whatever of one is healed, restarted or cleaned up, the other keeps what it has."""
    cluster.configure()
    nodes = cluster.populate({"node": podwired, "peer": podwired})
    node, _ = nodes
    before = seen(node)
    second = Other(nodes, podwired, backend)
    agents = [second.run(node, MASQUERADE) for node in nodes]
    both = seen(node)
    assert before - both == []
    assert [line for line in both.of("10.99.2.0") if line.startswith("routes")]
    node.run("kill", "-HUP", *node.run("pidof", "podwired").stdout.split())
    node.stop_agent()
    node.start_agent(podwired, MASQUERADE)
    agents[0].end()
    agents[0] = second.run(node, MASQUERADE)
    assert seen(node) == both
    assert cluster.is_whole()
    agents[0].end()
    node.run(str(podwired), "--cleanup", f"--subnet-file={OTHER_ENV}")
    assert seen(node) == before
    assert cluster.is_whole()


def test_the_tunnel_of_each_lets_its_own_peers_in(cluster: Cluster, podwired: Path) -> None:
    """A node of the first network alone is no stranger to it, and one to the second."""
    cluster.configure()
    node, peer, third = cluster.populate(dict.fromkeys(["node", "peer", "third"], podwired))
    Other([node, peer], podwired, SECOND[0]).run(node)
    assert cluster.is_whole()
    tables = [line.split()[-1] for line in node.run("nft", "list", "tables").stdout.splitlines() if "podwired" in line]
    allowed = {table: node.run("nft", "list", "set", "inet", table, "peers4").stdout for table in tables}
    assert len(allowed) == 2
    assert third.address() in allowed.pop("podwired")
    (others,) = allowed.values()
    assert peer.address() in others
    assert third.address() not in others


@pytest.mark.parametrize(("file", "vni"), [("/run/flannel/subnet.env", 2), (OTHER_ENV, 1)], ids=["file", "vni"])
def test_a_second_agent_of_the_same_is_refused_and_the_first_named(
    cluster: Cluster, podwired: Path, file: str, vni: int
) -> None:
    cluster.configure()
    node, peer = cluster.populate({"node": podwired, "peer": podwired})
    before, number = seen(node), node.run("pidof", "podwired").stdout.strip()
    agent = Other([node, peer], podwired, {"Type": "vxlan", "VNI": vni}).start(node, file)
    node.until(lambda: not agent.runs, "the second agent ends")
    assert f"(pid {number}, subnet file /run/flannel/subnet.env)" in agent.log
    assert seen(node) == before


def test_a_cleanup_is_refused_while_an_agent_runs(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    node, _ = cluster.populate({"node": podwired, "peer": podwired})
    before, number = seen(node), node.run("pidof", "podwired").stdout.strip()
    ended = node.run(str(podwired), "--cleanup", check=False)
    assert ended.returncode == 1
    assert f"pid {number}," in ended.stdout + ended.stderr
    assert seen(node) == before
    node.stop_agent("KILL")
    node.run(str(podwired), "--cleanup")


def test_an_agent_with_another_subnet_file_removes_the_filter_of_the_one_before(
    cluster: Cluster, podwired: Path
) -> None:
    """The earlier one's filter would drop the packets of nodes that came later."""
    cluster.configure()
    node, peer = cluster.populate({"node": podwired, "peer": podwired})
    node.stop_agent("KILL")
    agent = Other([node, peer], podwired, {"Type": "vxlan", "VNI": 1}).run(node)
    assert "podwired-" in node.run("nft", "list", "tables").stdout
    assert "table inet podwired\n" not in node.run("nft", "list", "tables").stdout
    assert agent.runs
