"""The agent in a cluster: it says what flannel says, what is taken from its node returns, and its end is not felt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.access import ClusterError, until
from tests.cluster.ticks import ticking

if TYPE_CHECKING:
    from tests.cluster.access import Cluster, Node
    from tests.cluster.conftest import Pods

ON_NODES = pytest.mark.usefixtures("node_command")
PREFIX = "flannel.alpha.coreos.com"
AGENT = "podwired"
ON = 60  # ticks that arrive before the agent ends, and after it came back
_FOREIGN_RULES = "nft list ruleset 2>/dev/null | grep -iE 'chain (FLANNEL|CNI)-|table ip6? (flannel|cni)' || true"
_PROGRAMS = (
    'for one in /opt/cni/bin/*; do [ -d "$one" ] || echo "$(basename "$one") $(basename "$(readlink -f "$one")")"; done'
)
_NETWORK = "for one in /etc/cni/net.d/*.conflist; do cat $one; break; done"


def vtep(cluster: Cluster, node: str) -> dict[str, Any]:
    """The node's tunnel device; skip where there is none."""
    links = json.loads(cluster.on(node, "ip", "-j", "-d", "link", "show", "type", "vxlan"))
    own = [link for link in links if link["ifname"].startswith("flannel.")]
    if not own:
        pytest.skip("the network has no tunnels")
    device: dict[str, Any] = own[0]
    return device


def agent_of(cluster: Cluster, node: str) -> set[str]:
    return set(cluster.shell(node, f"pgrep -x {AGENT} || true").split())


def end_agent(cluster: Cluster, node: str, signal: str, then: str = "true") -> None:
    """Ends it, and waits until another runs."""
    before = agent_of(cluster, node)

    def replaced() -> bool:
        now = agent_of(cluster, node)
        return len(now) == 1 and not now & before

    cluster.shell(node, f"pkill -{signal} -x {AGENT} && {then}")
    until(replaced, f"{node}'s agent is back")


def test_the_nodes_annotations_are_flannels(cluster: Cluster) -> None:
    for node in cluster.nodes():
        annotations = {key.removeprefix(f"{PREFIX}/"): text for key, text in node.annotations.items() if PREFIX in key}
        assert annotations["kube-subnet-manager"] == "true"
        assert annotations["public-ip"] == node.address
        assert annotations["backend-type"] in ("vxlan", "host-gw")


@ON_NODES
def test_the_published_mac_address_is_the_tunnels(cluster: Cluster, nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        device = vtep(cluster, node.name)
        data = {"VNI": device["linkinfo"]["info_data"]["id"], "VtepMAC": device["address"]}
        assert json.loads(node.annotations[f"{PREFIX}/backend-data"]) == data


def test_the_nodes_network_is_available(cluster: Cluster) -> None:
    for node in cluster.nodes():
        condition = node.conditions["NetworkUnavailable"]
        assert (condition["status"], condition["reason"]) == ("False", "FlannelIsUp")


@ON_NODES
def test_no_agent_and_no_rules_but_podwires(cluster: Cluster, nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        assert cluster.shell(node.name, "pgrep -x flanneld || true") == ""
        assert cluster.shell(node.name, _FOREIGN_RULES) == ""


@ON_NODES
def test_all_plugins_are_podwire(cluster: Cluster, nodes: tuple[Node, Node]) -> None:
    for node in nodes:
        programs = dict(line.split() for line in cluster.shell(node.name, _PROGRAMS).splitlines())
        network = json.loads(cluster.shell(node.name, _NETWORK))
        used = {plugin["type"] for plugin in network["plugins"]}
        assert {programs[name] for name in used | {"flannel"}} == {"podwire"}
        if foreign := {name for name, program in programs.items() if not program.startswith("podwire")}:
            pytest.skip(
                f"{node.name} came with programs of others, which no network uses: {', '.join(sorted(foreign))}"
            )


@ON_NODES
@pytest.mark.parametrize(
    "command",
    [
        "ip route del {cidr}",
        "ip link del {vtep}",
        "ip link set {vtep} down",
        "ip neighbour flush dev {vtep} nud permanent; bridge fdb del {mac} dev {vtep}",
        "nft delete table inet podwired",
    ],
    ids=["route", "tunnel", "tunnel down", "neighbours", "rules"],
)
def test_what_is_taken_from_a_node_comes_back(
    cluster: Cluster, pods: Pods, nodes: tuple[Node, Node], command: str
) -> None:
    here, unreachable = nodes
    device, peer = vtep(cluster, here.name)["ifname"], vtep(cluster, unreachable.name)["address"]
    before = data_plane(cluster, here.name, device)
    assert unreachable.cidr in before
    cluster.shell(here.name, command.format(cidr=unreachable.cidr, vtep=device, mac=peer))
    until(lambda: data_plane(cluster, here.name, device) == before, "the data plane is as it was")
    assert pods.here.seen_at(pods.unreachable.address) == pods.here.address
    assert pods.unreachable.seen_at(pods.here.address) == pods.unreachable.address


@ON_NODES
def test_what_is_taken_while_the_agent_is_away_comes_back(
    cluster: Cluster, pods: Pods, nodes: tuple[Node, Node]
) -> None:
    here, unreachable = nodes
    device = vtep(cluster, here.name)["ifname"]
    before = data_plane(cluster, here.name, device)
    assert unreachable.cidr in before
    end_agent(cluster, here.name, "KILL", f"ip route del {unreachable.cidr} && ip link del {device}")
    until(lambda: data_plane(cluster, here.name, device) == before, "the data plane is as it was")
    assert pods.here.seen_at(pods.unreachable.address) == pods.here.address


@ON_NODES
@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_no_packet_is_lost_when_the_agents_start_again(cluster: Cluster, nodes: tuple[Node, Node], signal: str) -> None:
    with ticking(cluster, nodes[1].name, nodes[0].name) as ticks:
        ticks.wait_for(ON)
        for node in nodes:
            end_agent(cluster, node.name, signal)
            ticks.wait_for(ON)
        ticks.stop()
        assert ticks.lost() == []
        assert ticks.unanswered() == []


def test_no_packet_is_lost_by_a_rolling_update(cluster: Cluster, nodes: tuple[Node, Node]) -> None:
    name, place = "daemonset/podwire", ("-n", "podwire-system")
    try:
        cluster.kubectl("get", name, *place)
    except ClusterError:
        pytest.skip("podwire is not installed as a DaemonSet")
    with ticking(cluster, nodes[1].name, nodes[0].name) as ticks:
        ticks.wait_for(ON)
        cluster.kubectl("rollout", "restart", name, *place)
        cluster.kubectl("rollout", "status", name, *place, "--timeout=300s")
        ticks.wait_for(ON)
        ticks.stop()
        assert ticks.lost() == []
        assert ticks.unanswered() == []


def data_plane(cluster: Cluster, node: str, device: str) -> str:
    """Returns the routes, neighbours and FDB entries of other nodes, and the rules; counters are left out."""
    script = f"""
        ip link show {device} | grep -o 'flannel.*UP'
        ip -4 address show dev {device} | grep inet
        ip -4 route show proto 80 | sort
        ip neighbour show dev {device} nud permanent | sort
        bridge fdb show dev {device} | grep dst | sort
        nft -s list table inet podwired
    """
    try:
        return cluster.shell(node, script)
    except ClusterError as error:
        return str(error)
