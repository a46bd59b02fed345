"""etcd fails, forgets and holds what makes no sense: podwired serves those who can be served, and goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.system.nodes import MASQUERADE, WIRE
from tests.system.overlay import lossless, seen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.conftest import Pair
    from tests.system.nodes import Cluster, Node
    from tests.system.plugins import Json

DOWN, LATE = 30.0, 3.0  # seconds without the store: an outage, and at the agent's start
FALLEN_SILENT = 90.0  # the longest until a connection without a sign of life is given up
ELSEWHERE = "127.0.0.1"
CUT = """
table ip cut {
  chain in { type filter hook input priority 0; iifname wire tcp dport 2379 drop; }
  chain out { type filter hook output priority 0; oifname wire tcp sport 2379 drop; }
}
"""
SUBNET, FIRST, IP, MAC = "10.244.210.0-24", "10.244.210.0", "192.168.100.210", "02:00:00:00:02:10"


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


def lease(ip: str, mac: str) -> Json:
    """As flanneld writes it."""
    data = {"VNI": 1, "VtepMAC": mac}
    return {"PublicIP": ip, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}


def knows(node: Node, *text: str) -> bool:
    """All of these are in the node's tables."""
    now = seen(node)
    return all(now.of(f'"{word}"') for word in text)


def pair(cluster: Cluster, podwired: Path) -> tuple[Node, Node]:
    cluster.configure()
    node, other = cluster.populate({"node": podwired, "other": podwired})
    return node, other


def test_an_outage_of_the_store_is_not_felt(cluster: Cluster, podwired: Path) -> None:
    node, other = pair(cluster, podwired)
    before = seen(node)
    with lossless(node.guest, other.guest):
        cluster.etcd.stop()
        time.sleep(DOWN)
        assert seen(node) == before
        assert node.probe("healthz")[0] == 200
        cluster.etcd.start()
        cluster.etcd.put(f"subnets/{SUBNET}", lease(IP, MAC))
        cluster.until(lambda: knows(node, IP, MAC), "the agent knows what came after the outage")
        cluster.etcd.delete(f"subnets/{SUBNET}")
        cluster.until(lambda: seen(node) == before, "the agent knows what went")


def test_what_the_store_has_forgotten_by_then_is_made_up_for(cluster: Cluster, podwired: Path) -> None:
    """The changes are compacted while the agents cannot connect."""
    node, other = pair(cluster, podwired)
    cluster.etcd.put("subnets/10.244.211.0-24", lease("192.168.100.211", "02:00:00:00:02:11"))
    cluster.until(lambda: knows(node, "192.168.100.211"), "the agent knows the first")
    with lossless(node.guest, other.guest):
        cluster.etcd.stop()
        cluster.etcd.start(ELSEWHERE)
        cluster.etcd.delete("subnets/10.244.211.0-24")
        for _ in range(3):
            cluster.etcd.put(f"subnets/{SUBNET}", lease(IP, MAC))
        cluster.etcd.compact()
        cluster.etcd.stop()
        cluster.etcd.start()
        cluster.until(lambda: knows(node, IP, MAC), "the agent knows what came")
        cluster.until(lambda: not knows(node, "192.168.100.211"), "the agent knows what went")


def test_a_connection_that_fell_silent_is_given_up(cluster: Cluster, podwired: Path) -> None:
    """The other end is gone without a FIN or RST."""
    node, _ = pair(cluster, podwired)
    cluster.machine.run("nft", "-f", "-", stdin=CUT)
    cluster.etcd.stop()
    cluster.machine.run("ss", "-K", "sport = 2379")
    cluster.machine.run("nft", "delete", "table", "ip", "cut")
    cluster.etcd.start()
    cluster.etcd.put(f"subnets/{SUBNET}", lease(IP, MAC))
    cluster.until(lambda: knows(node, IP, MAC), "the agent connects again", FALLEN_SILENT)


def test_the_own_lease_comes_back_where_somebody_removed_it(usual_pair: Pair) -> None:
    """Meanwhile the other nodes have no way here."""
    with usual_pair.lent() as (node, other):
        cluster = node.cluster
        before, held = (seen(node), seen(other)), node.lease()
        cluster.etcd.delete(f"subnets/{held[0]}")
        cluster.until(lambda: held[0] in cluster.etcd.leases(), "the lease is there again")
        cluster.until(lambda: cluster.is_whole() and (seen(node), seen(other)) == before, "the nodes are as before")
        assert node.lease() == held


@pytest.mark.parametrize(
    ("ip", "mac"),
    [(IP, "02:00:00:00:02:12"), ("192.168.100.212", MAC), ("192.168.100.212", "02:00:00:00:02:12")],
    ids=["its MAC address", "its address", "both"],
)
def test_of_a_node_that_has_changed_nothing_old_is_left(usual_pair: Pair, ip: str, mac: str) -> None:
    with usual_pair.lent() as (node, _):
        cluster = node.cluster
        before = seen(node)
        cluster.etcd.put(f"subnets/{SUBNET}", lease(IP, MAC))
        cluster.until(lambda: knows(node, IP, MAC), "the agent knows the node")
        cluster.etcd.put(f"subnets/{SUBNET}", lease(ip, mac))
        gone = {IP, MAC} - {ip, mac}

        def is_exact() -> bool:
            return knows(node, ip, mac) and not any(knows(node, word) for word in gone)

        cluster.until(is_exact, "the agent knows the change, and nothing old")
        cluster.etcd.delete(f"subnets/{SUBNET}")
        cluster.until(lambda: seen(node) == before, "nothing is left of it")


def bad_leases(node: Node) -> dict[str, object]:
    """Each with a word of its own, .22x or :02:2x, that must be nowhere in the node's tables."""
    inside = node.subnet().partition("/")[0]
    return {
        "garbage": lease("192.168.100.220", "02:00:00:00:02:20"),
        "10.244.220.0-99": lease("192.168.100.220", "02:00:00:00:02:20"),
        "10.244.221.0-24": "garbage",
        "10.244.222.0-24": {},
        "10.244.223.0-24": [],
        "10.244.224.0-24": {**lease("192.168.100.224", ""), "BackendData": None},
        "10.244.225.0-24": lease("", "02:00:00:00:02:25"),
        "10.244.99.0-24": lease(node.address(), "02:00:00:00:02:26"),  # sorts behind all that nodes take
        "10.244.227.0-24": {**lease("192.168.100.227", "02:00:00:00:02:27"), "BackendType": "udp"},
        "10.99.0.0-24": lease("192.168.100.228", "02:00:00:00:02:28"),
        "0.0.0.0-0": lease("192.168.100.228", "02:00:00:00:02:28"),
        "10.244.0.0-16": lease("192.168.100.228", "02:00:00:00:02:28"),
        f"{inside}-25": lease("192.168.100.229", "02:00:00:00:02:29"),
        "10.244.229.0-24": lease("192.168.100.229", "00:00:00:00:00:00"),
        "10.244.228.0-24": lease("224.0.0.228", "02:00:00:00:02:28"),
    }


@pytest.mark.parametrize("restarted", [False, True], ids=["while it runs", "at its start"])
def test_bad_leases_harm_nobody_else(cluster: Cluster, podwired: Path, *, restarted: bool) -> None:
    node, _ = pair(cluster, podwired)
    before = seen(node)
    if restarted:
        node.stop_agent()
    for key, value in bad_leases(node).items():
        cluster.etcd.put(f"subnets/{key}", value)
    cluster.etcd.put(f"subnets/{SUBNET}", lease(IP, MAC))
    if restarted:
        node.start_agent(podwired, MASQUERADE)
    cluster.until(lambda: knows(node, IP, MAC), "the good one is served")
    assert [line for line in seen(node) - before if not any(word in line for word in (IP, MAC, FIRST))] == []
    assert cluster.is_whole()
    assert (node.probe("healthz")[0], node.probe("readyz")[0]) == (200, 200)
    assert node.agent
    assert node.agent.runs
    cluster.etcd.delete(f"subnets/{SUBNET}")
    cluster.until(lambda: seen(node) == before, "nothing is left of it")


def test_of_two_nodes_with_one_mac_address_the_newer_is_served(usual_pair: Pair) -> None:
    with usual_pair.lent() as (node, _):
        cluster = node.cluster
        before, second = seen(node), "192.168.100.212"
        cluster.etcd.put("subnets/10.244.212.0-24", lease(second, MAC))
        cluster.until(lambda: knows(node, second, MAC), "the one is served while it is alone")
        cluster.etcd.put(f"subnets/{SUBNET}", lease(IP, MAC))
        cluster.until(lambda: knows(node, IP, MAC) and not knows(node, second), "the newer is served")
        cluster.etcd.delete(f"subnets/{SUBNET}")
        cluster.until(lambda: knows(node, second, MAC) and not knows(node, IP), "the other is alone again")
        cluster.etcd.delete("subnets/10.244.212.0-24")
        cluster.until(lambda: seen(node) == before, "nothing is left of it")


@pytest.mark.parametrize("mac", [MAC, "02:00:00:00:02:12"], ids=["one device", "two devices"])
def test_of_a_machine_with_two_leases_both_subnets_are_reached(usual_pair: Pair, mac: str) -> None:
    """It was given another subnet, or another name, before its old lease has ended."""
    with usual_pair.lent() as (node, _):
        cluster = node.cluster
        before, later = seen(node), "10.244.212.0"
        cluster.etcd.put(f"subnets/{SUBNET}", lease(IP, MAC))
        cluster.etcd.put(f"subnets/{later}-24", lease(IP, mac))
        cluster.until(lambda: knows(node, FIRST, later, MAC, mac), "both are served")
        cluster.etcd.delete(f"subnets/{SUBNET}")

        def is_gone() -> bool:
            return not knows(node, FIRST) and (mac == MAC or not knows(node, MAC))

        cluster.until(is_gone, "the old one is gone")
        assert knows(node, later, mac, IP)
        cluster.etcd.delete(f"subnets/{later}-24")
        cluster.until(lambda: seen(node) == before, "nothing is left of it")


def test_an_agent_waits_for_the_store_and_the_networks_configuration(cluster: Cluster, podwired: Path) -> None:
    (node,) = cluster.add("node")
    cluster.etcd.stop()
    node.start_agent(podwired, MASQUERADE, ready=False)
    cluster.until(lambda: node.probe("healthz")[0] == 200, "the agent answers")
    assert (node.probe("readyz")[0], node.subnet_env()) == (503, "")
    cluster.etcd.start(WIRE[4])
    cluster.etcd.put("config", {"Network": "nonsense"})
    time.sleep(LATE)
    assert (node.probe("healthz")[0], node.probe("readyz")[0], node.subnet_env()) == (200, 503, "")
    cluster.configure()
    cluster.until(lambda: node.probe("readyz")[0] == 200, "the agent is ready")
    assert node.subnet_env()
