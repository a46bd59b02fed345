"""Nodes that go and come: their pods come back, other nodes follow, and nothing is left of what was."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from tests.cluster import objects
from tests.cluster.access import Pod, is_ready, until
from tests.cluster.conftest import made
from tests.cluster.nodestate import wait_for_leases_of_pods

if TYPE_CHECKING:
    from tests.cluster.access import Cluster, Node
    from tests.cluster.conftest import Pods

pytestmark = pytest.mark.usefixtures("node_command")
_RESTART_KUBELET = "systemctl restart kubelet 2>/dev/null || pkill -x kubelet"
_PEER = "ip -4 route show proto 80; ip neighbour show nud permanent; bridge fdb show | grep dst || true"


def container(cluster: Cluster, pod: str) -> str:
    status = Pod(cluster, pod).now["status"]
    return str(status["containerStatuses"][0]["containerID"]) if is_ready(Pod(cluster, pod).now) else ""


def bridge_networks(cluster: Cluster, node: str) -> set[str]:
    """The ranges that the node's bridges have a gateway of."""
    bridges = json.loads(cluster.on(node, "ip", "-j", "-4", "address", "show", "type", "bridge"))
    inet = [each for bridge in bridges for each in bridge.get("addr_info", ())]
    return {str(ip_network(f"{each['local']}/{each['prefixlen']}", strict=False)) for each in inet}


def test_pods_of_a_node_whose_plug_was_pulled_come_back(cluster: Cluster, pods: Pods, nodes: tuple[Node, Node]) -> None:
    if not cluster.plug_command:
        pytest.skip("PODWIRE_NODE_PLUG does not say how to pull a node's plug")
    lost = nodes[1].name
    ported = [{"containerPort": objects.TCP, "hostPort": 28082}]
    annotations = objects.limits("100M")
    made(cluster, objects.pod("returning", lost, annotations=annotations, ports=ported), objects.pod("dropped", lost))
    staying = ["far", "host-far", "returning"]
    before = {name: container(cluster, name) for name in staying}
    cluster.pull_plug(lost, "stop")
    cluster.kubectl("delete", "pod", "-n", cluster.namespace, "dropped", "--force", "--grace-period=0")
    cluster.pull_plug(lost, "start")
    until(lambda: all(container(cluster, name) not in ("", before[name]) for name in staying), "the pods run again")
    assert pods.here.seen_at(pods.unreachable.address) == pods.here.address
    assert pods.unreachable.seen_at(pods.here.address) == pods.unreachable.address
    assert pods.host_here.answered_from(nodes[1].address, 28082) == "returning"
    wait_for_leases_of_pods(cluster, lost)
    cluster.delete("pod", "returning")
    wait_for_leases_of_pods(cluster, lost)


def test_a_node_that_was_removed_comes_back(cluster: Cluster, pods: Pods, nodes: tuple[Node, Node]) -> None:
    stays, goes = nodes
    restart_kubelet(cluster, goes.name)
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--grace-period=1", "--timeout=300s"]
    cluster.kubectl("drain", goes.name, *options)
    cluster.kubectl("delete", "node", goes.name)
    until(lambda: goes.address not in cluster.shell(stays.name, _PEER), f"{stays.name} knows it no more")
    assert goes.cidr not in cluster.shell(stays.name, _PEER)

    restart_kubelet(cluster, goes.name)
    until(lambda: is_back(cluster, goes.name), f"{goes.name} is back")
    again = cluster.node(goes.name)
    until(lambda: again.cidr in cluster.shell(stays.name, _PEER), f"{stays.name} knows its range")
    made(cluster, objects.pod("far", goes.name))
    unreachable = Pod(cluster, "far")
    assert ip_address(unreachable.address) in ip_network(again.cidr)
    assert pods.here.seen_at(unreachable.address) == pods.here.address
    assert unreachable.seen_at(pods.here.address) == unreachable.address
    assert bridge_networks(cluster, goes.name) >= {again.cidr}
    wait_for_leases_of_pods(cluster, goes.name)


def is_back(cluster: Cluster, name: str) -> bool:
    """It has a range again, and said so."""
    nodes = [node for node in cluster.nodes() if node.name == name and node.is_ready and node.cidr]
    return any(node.conditions.get("NetworkUnavailable", {}).get("status") == "False" for node in nodes)


def restart_kubelet(cluster: Cluster, node: str) -> None:
    """Skips where nobody starts it again, before anything is removed."""
    before = cluster.shell(node, "pgrep -x kubelet || true").split()
    if not before:
        pytest.skip(f"kubelet is no process of {node}'s")
    cluster.shell(node, _RESTART_KUBELET)

    def again() -> bool:
        now = cluster.shell(node, "pgrep -x kubelet || true").split()
        return bool(now) and not set(now) & set(before)

    until(again, f"{node}'s kubelet runs again")
