"""The cluster, and the pods that most tests ask by: two on one node, one on another, one in each node's own network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import pytest

from tests.cluster import objects
from tests.cluster.access import MANAGED, Cluster, ClusterError, Pod, is_ready, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import Json, Node

FOLDER = Path(__file__).parent


class Pods(NamedTuple):
    here: Pod
    neighbour: Pod
    unreachable: Pod
    host_here: Pod
    host_far: Pod


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One after the other, since they compare nodes before and after; those that take nodes away come last."""
    own = [item for item in items if item.path.parent == FOLDER]
    for item in own:
        item.add_marker(pytest.mark.cluster)
        item.add_marker(pytest.mark.xdist_group("cluster"))
    items.sort(key=lambda item: item.path == FOLDER / "test_nodes.py")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Yields the cluster, with a new namespace that goes at the end."""
    if not (os.environ.get("KUBECONFIG") and os.environ.get("PODWIRE_NODE_COMMAND")):
        # Both: who has a cluster at hand does not mean to have pods by the dozen started there, and nodes stopped.
        pytest.skip("KUBECONFIG and PODWIRE_NODE_COMMAND name no cluster to test (see tests/cluster/access.py)")
    if not os.environ.get("PODWIRE_KUBECTL") and shutil.which("kubectl") is None:
        pytest.skip("absent: kubectl (or PODWIRE_KUBECTL)")
    cluster = Cluster(f"podwire-test-{uuid4().hex[:8]}")
    if not all(MANAGED in node.annotations for node in cluster.nodes()):
        pytest.skip("the network of KUBECONFIG's cluster is not podwire's")
    cluster.kubectl("create", "-f", "-", stdin=objects.text(objects.namespace(cluster.namespace)))
    try:
        until(lambda: cluster.items("serviceaccount"), "the namespace is ready for pods")
        yield cluster
    finally:
        cluster.kubectl("delete", "namespace", cluster.namespace, "--timeout=300s")


@pytest.fixture
def nodes(cluster: Cluster) -> tuple[Node, Node]:
    """Returns two nodes; the second is none of the control plane, where there is a choice."""
    ready = [node for node in cluster.nodes() if node.is_ready]
    if len(ready) < 2:
        pytest.skip("needs two nodes that are ready")
    return ready[-2], ready[-1]


@pytest.fixture
def pods(cluster: Cluster, nodes: tuple[Node, Node]) -> Pods:
    """Returns the pods; those that an earlier test has lost are recreated."""
    here, unreachable = (node.name for node in nodes)
    wanted = [
        objects.pod("here", here),
        objects.pod("neighbour", here),
        objects.pod("far", unreachable),
        objects.pod("host-here", here, on_host=True),
        objects.pod("host-far", unreachable, on_host=True),
    ]
    made(cluster, *wanted)
    names = [item["metadata"]["name"] for item in wanted]
    ports = [objects.HOST_TCP if name.startswith("host") else objects.TCP for name in names]
    return Pods(*(Pod(cluster, name, port) for name, port in zip(names, ports, strict=True)))


@pytest.fixture
def node_command(cluster: Cluster, nodes: tuple[Node, Node]) -> None:
    """Skips where programs cannot be run on nodes."""
    if not cluster.node_command:
        pytest.skip("PODWIRE_NODE_COMMAND does not say how to run programs on a node")
    for node in nodes:
        cluster.shell(node.name, "command -v ip nft tc pgrep pkill")


def made(cluster: Cluster, *wanted: Json) -> None:
    """Makes the pods that are not there, and waits until all are ready."""
    names = {item["metadata"]["name"] for item in wanted}

    def ready() -> bool:
        pods = {item["metadata"]["name"]: item for item in cluster.items("pods")}
        if missing := [item for item in wanted if item["metadata"]["name"] not in pods]:
            cluster.apply(*missing)
            return False
        return all(is_ready(pods[name]) for name in names)

    try:
        until(ready, f"ready: {', '.join(sorted(names))}")
    except ClusterError as error:
        messages = [item["message"] for item in cluster.items("events") if item["involvedObject"]["name"] in names]
        raise ClusterError("; ".join([str(error), *messages[-3:]])) from error
