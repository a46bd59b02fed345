"""Tests kube-proxy's services over podwire's network: they answer, and keep source addresses where they should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cluster import objects
from tests.cluster.access import Pod, until
from tests.cluster.conftest import made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import Cluster, Json, Node
    from tests.cluster.conftest import Pods

ASKED = 12  # times: that many are not all answered by one of two servers by chance
NODE_PORTS = {"one-port": "Cluster", "one-port-local": "Local"}


@pytest.fixture(scope="module")
def services(cluster: Cluster) -> Iterator[Cluster]:
    """Yields services of the pod `far`, and two of both `here` and `far`."""
    unreachable, both = {"app": "far"}, {"both": "yes"}
    made_here = [
        objects.service("one", unreachable),
        objects.service("own", {"app": "here"}),
        objects.service("two", both),
        objects.service("sticky", both, sessionAffinity="ClientIP"),
    ]
    made_here += [
        objects.service(name, unreachable, type="NodePort", externalTrafficPolicy=policy)
        for name, policy in NODE_PORTS.items()
    ]
    cluster.apply(*made_here)
    yield cluster
    cluster.delete("service", *(service["metadata"]["name"] for service in made_here))


@pytest.mark.parametrize("client", ["here", "far"], ids=["on another node", "itself"])
def test_a_service_is_reached_by_its_address(pods: Pods, services: Cluster, client: str) -> None:
    asking: Pod = getattr(pods, client)
    seen = asking.seen_at(objects.cluster_ip(services, "one"), 80)
    assert client == "far" or seen == asking.address


def test_a_service_of_a_neighbour_sees_the_pods_own_address(pods: Pods, services: Cluster) -> None:
    assert pods.neighbour.seen_at(objects.cluster_ip(services, "own"), 80) == pods.neighbour.address


def test_a_service_is_reached_by_udp(pods: Pods, services: Cluster) -> None:
    assert pods.here.seen_by_udp_at(objects.cluster_ip(services, "one"), 80) == pods.here.address


def test_a_pod_reaches_itself_through_its_own_service(pods: Pods, services: Cluster) -> None:
    address = objects.cluster_ip(services, "own")
    assert pods.here.answered_from(address, 80) == "here"


def test_nodes_reach_a_service(pods: Pods, services: Cluster) -> None:
    address = objects.cluster_ip(services, "one")
    for host in (pods.host_here, pods.host_far):
        assert host.answered_from(address, 80) == "far"


def test_affinity_keeps_a_client_with_one_server(pods: Pods, services: Cluster) -> None:
    services.kubectl("label", "-n", services.namespace, "--overwrite", "pod", "here", "far", "both=yes")
    anyone, sticky = (objects.cluster_ip(services, name) for name in ("two", "sticky"))

    def answers(address: str) -> set[str]:
        loop = f"for i in $(seq {ASKED}); do curl -sSf --max-time 10 http://{address}/hostname; echo; done"
        return set(pods.neighbour.shell(loop).split())

    until(lambda: answers(anyone) == {"here", "far"}, "both servers are asked")
    assert len(until(lambda: answers(sticky), "a server answers")) == 1


@pytest.mark.parametrize("client", ["neighbour", "host_here", "host_far"])
def test_a_port_of_the_nodes_is_reached_at_every_node(
    pods: Pods, nodes: tuple[Node, Node], services: Cluster, client: str
) -> None:
    port = objects.node_port(services, "one-port")
    asking: Pod = getattr(pods, client)
    for node in nodes:
        assert asking.answered_from(node.address, port) == "far"


def test_a_port_of_the_nodes_is_reached_by_udp(pods: Pods, nodes: tuple[Node, Node], services: Cluster) -> None:
    for node in nodes:
        assert pods.host_here.seen_by_udp_at(node.address, objects.node_port(services, "one-port", "udp"))


def test_a_local_port_of_the_nodes_sees_who_asks(pods: Pods, nodes: tuple[Node, Node], services: Cluster) -> None:
    port = objects.node_port(services, "one-port-local")
    assert pods.host_here.seen_at(nodes[1].address, port) == nodes[0].address


def test_a_port_of_its_host_is_reached_from_everywhere_until_the_pod_goes(
    cluster: Cluster, pods: Pods, nodes: tuple[Node, Node]
) -> None:
    port = 28080
    both: list[Json] = [
        {"containerPort": objects.TCP, "hostPort": port},
        {"containerPort": objects.UDP, "hostPort": port, "protocol": "UDP"},
    ]
    made(cluster, objects.pod("ported", nodes[0].name, ports=both))
    here = nodes[0].address
    for asking in (pods.neighbour, pods.unreachable, pods.host_here, pods.host_far, Pod(cluster, "ported")):
        assert asking.answered_from(here, port) == "ported"
    assert pods.host_here.ask("127.0.0.1", port, "hostname") == "ported"
    assert pods.host_far.seen_at(here, port) == nodes[1].address
    assert pods.host_far.seen_by_udp_at(here, port) == nodes[1].address
    cluster.delete("pod", "ported")
    refused = f"! curl -s --max-time 5 http://{here}:{port}/ && echo refused"
    assert pods.host_far.shell(refused).strip() == "refused"
