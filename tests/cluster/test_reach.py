"""Tests that pods and nodes reach each other by the pods' own addresses, and the source that the other side sees."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import pytest

from tests.cluster import objects

if TYPE_CHECKING:
    from tests.cluster.access import Node
    from tests.cluster.conftest import Pods

PAIRS = [("here", "neighbour"), ("here", "far"), ("far", "here"), ("here", "here")]


@pytest.mark.parametrize(("client", "server"), PAIRS, ids=["one node", "to another node", "back", "itself"])
def test_pods_see_each_other_by_their_own_addresses(pods: Pods, client: str, server: str) -> None:
    asking, answering = getattr(pods, client), getattr(pods, server)
    assert asking.seen_at(answering.address) == asking.address


@pytest.mark.parametrize("server", ["neighbour", "far"])
def test_so_they_do_by_udp(pods: Pods, server: str) -> None:
    address = getattr(pods, server).address
    assert pods.here.seen_by_udp_at(address, objects.UDP) == pods.here.address


@pytest.mark.parametrize("server", ["neighbour", "far"])
def test_what_no_packet_can_hold_arrives_whole(pods: Pods, server: str) -> None:
    address = getattr(pods, server).address
    pods.here.seen_at(address)
    assert pods.here.ask(address, objects.TCP, f"echo?msg={'x' * 50_000}") == "x" * 50_000


def test_pods_reach_their_own_node_by_their_own_address(pods: Pods, nodes: tuple[Node, Node]) -> None:
    assert pods.here.seen_at(nodes[0].address, objects.HOST_TCP) == pods.here.address


def test_pods_reach_another_node_by_the_address_of_theirs(pods: Pods, nodes: tuple[Node, Node]) -> None:
    assert pods.here.seen_at(nodes[1].address, objects.HOST_TCP) == nodes[0].address


@pytest.mark.parametrize("server", ["here", "far"], ids=["its own", "of another node"])
def test_nodes_reach_pods_by_an_address_of_their_own(pods: Pods, nodes: tuple[Node, Node], server: str) -> None:
    seen = pods.host_here.seen_at(getattr(pods, server).address)
    assert seen == nodes[0].address or ip_address(seen) in ip_network(nodes[0].cidr)


def test_pods_have_addresses_of_their_nodes_range(pods: Pods, nodes: tuple[Node, Node]) -> None:
    for pod, node in ((pods.here, nodes[0]), (pods.neighbour, nodes[0]), (pods.unreachable, nodes[1])):
        assert ip_address(pod.address) in ip_network(node.cidr)
