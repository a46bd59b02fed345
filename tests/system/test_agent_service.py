"""Tests traffic that leaves the cluster, and podwired's health, metrics and logs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.system.nodes import POD_PORT, WIRE
from tests.system.overlay import seen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster

SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (?P<value>[-+.\deE]+|NaN|[+-]Inf)")


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_pods_leave_the_cluster_with_the_nodes_address_and_no_other_way(
    cluster: Cluster, podwired: Path, backend: str
) -> None:
    """Pods of the cluster still see each other's own addresses."""
    cluster.configure({"Type": backend}, (4, 6))
    node, other = cluster.populate({"node": podwired, "other": podwired})
    for family, world in WIRE.items():
        assert node.guest.source_at(world) == node.address(family)
        cluster.machine.run(
            "ip",
            f"-{family}",
            "route",
            "add",
            node_subnet(node.guest.addresses[family], family),
            "via",
            node.address(family),
        )
        assert cluster.machine.ask(node.guest.addresses[family], POD_PORT) == world
        assert node.ask(other.guest.addresses[family], POD_PORT)


def node_subnet(address: str, family: int) -> str:
    return f"{address.rpartition('.')[0]}.0/24" if family == 4 else f"{address.rpartition('::')[0]}::/64"


def test_without_its_word_nothing_is_masqueraded(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    (node,) = cluster.add("node")
    node.start_agent(podwired)
    assert "FLANNEL_IPMASQ=false\n" in node.subnet_env()
    guest = node.attach(delegate={"ipMasq": False})
    cluster.machine.serve(POD_PORT)
    cluster.machine.run("ip", "route", "add", node.subnet(), "via", node.address())
    assert guest.source_at(WIRE[4]) == guest.addresses[4]
    assert [line for line in seen(node).lines if "masquerade" in line] == []


@pytest.mark.parametrize("kind", ["bridge", "podwire", "ptp"])
def test_every_kind_of_delegate_is_joined_to_the_cluster(cluster: Cluster, podwired: Path, kind: str) -> None:
    cluster.configure()
    node, other = cluster.populate({"node": podwired, "other": podwired})
    guest = node.attach("more", {"type": kind})
    cluster.until(lambda: guest.reaches(other.guest) and other.guest.reaches(guest), "pods reach each other")


def test_what_the_agent_counts_is_reported_in_prometheus_format(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    node, _, _ = cluster.populate(dict.fromkeys(["node", "second", "third"], podwired))
    status, text = node.probe("metrics")
    assert status == 200
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            samples[line.rpartition(" ")[0]] = float(sample["value"])
    assert samples["podwired_peers"] == 2
    assert samples["podwired_ready"] == samples["podwired_store_up"] == 1
    assert [name for name in samples if not name.startswith(("podwired_", "process_"))] == []
    types = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(types) == len(set(types)) > 0


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_pods_of_a_network_without_ipv4_reach_each_other_and_the_external_network(
    cluster: Cluster, podwired: Path, backend: str
) -> None:
    cluster.configure({"Type": backend}, (6,))
    node, other = cluster.populate({"node": podwired, "other": podwired})
    assert tuple(node.guest.addresses) == tuple(other.guest.addresses) == (6,)
    assert node.guest.source_at(WIRE[6]) == node.address(6)
    assert "FLANNEL_NETWORK=" not in node.subnet_env()
    assert "FLANNEL_IPV6_SUBNET=" in node.subnet_env()
