"""`podwire doctor` on a node of a cluster: it names why peers are not reached, and a second agent."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.machine import until
from tests.system.cards import broken_card
from tests.system.nodes import MASQUERADE
from tests.system.programs import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.conftest import Pair
    from tests.system.nodes import Cluster, Node

    Json = dict[str, Any]

PORT_FILTER = "nft 'table inet admin { chain input { type filter hook input priority 0; udp dport 8472 %s; }; }'"
NO_FILTER = "nft delete table inet admin"
TAKE_PORT = """
ip link set flannel.1 down
python3 -c 'import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("", 8472)); time.sleep(600)' \
    >/dev/null 2>&1 &
echo $! >/run/taker; until ss -lun | grep -q :8472; do sleep 0.05; done
"""


class Doctor:
    """The person at a node's terminal."""

    def __init__(self, node: Node, plugins: Path) -> None:
        self.node, self._podwire = node, str(plugins / "podwire")

    def findings(self) -> list[Json]:
        text = self.node.run(self._podwire, "doctor", "--bin-dir", "/none", "--json", check=False).stdout
        findings: list[Json] = json.loads(text)["findings"]
        return findings

    def names(self) -> list[str]:
        return [finding["name"] for finding in self.findings()]

    def finds(self, *names: str) -> list[Json]:
        """Returns the findings once they are these: agents take a moment for what they do by themselves."""
        seen: list[Json] = []

        def same() -> bool:
            seen[:] = self.findings()
            return [finding["name"] for finding in seen] == [*names]

        try:
            until(same, f"the findings are {names}", 20)
        except Exception as error:
            raise AssertionError(f"{error}: {seen}") from error
        return seen


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@contextmanager
def lent(pair: Pair, plugins: Path) -> Iterator[tuple[Doctor, Node]]:
    """Gives a node with its doctor, and its peer. A test that fails in there keeps them from the next one."""
    with pair.lent() as (node, other):
        yield Doctor(node, plugins), other


class Case(NamedTuple):
    """Scripts of the node, its peer or the world outside that break the network, and those that mend it."""

    finding: str
    damage: dict[str, str]
    remedy: dict[str, str]
    evidence: str = ""


NODE, PEER, WORLD = "node", "peer", "world"
CASES = {
    "the tunnel's port is filtered at a peer": Case(
        "tunnel-filtered", {PEER: PORT_FILTER % "drop"}, {PEER: NO_FILTER}, "UDP port 8472 is filtered"
    ),
    "the tunnel's port is rejected at a peer": Case(
        "tunnel-closed", {PEER: PORT_FILTER % "reject"}, {PEER: NO_FILTER}, "Connection refused"
    ),
    "the tunnel's port is filtered here": Case("tunnel-filtered", {NODE: PORT_FILTER % "drop"}, {NODE: NO_FILTER}),
    "this node's firewall keeps the tunnel's packets": Case(
        "tunnel-filtered",
        {NODE: "nft 'table inet admin { chain output { type filter hook output priority 0; udp dport 8472 drop; }; }'"},
        {NODE: NO_FILTER},
        "this node's own firewall lets nothing out",
    ),
    "another route to the peer's pods": Case(
        "route-diverted",
        {NODE: "ip route add blackhole $(ip route show dev flannel.1 | sed 's:/.*::')/25"},
        {NODE: "ip route del $(ip route show type blackhole | cut -d' ' -f2)"},
        "the kernel refuses to route to",
    ),
    "a rule for this node's address in the tunnel": Case(
        "route-diverted",
        {NODE: "ip rule add from $(ip -br -4 address show flannel.1 | awk '{ print $3 }') unreachable"},
        {NODE: "ip rule del unreachable"},
        "the kernel refuses to route to",
    ),
    "a peer is away": Case(
        "peer-unreachable", {WORLD: "ip link set port-other down"}, {WORLD: "ip link set port-other up"}
    ),
    "the path takes less than the underlay's MTU": Case(
        "path-mtu",
        {WORLD: "ip link set port-other mtu 1400"},
        {NODE: "REMEDY"},
        "packets of 1450 bytes by flannel.1 are lost without an error, those of 1350 arrive",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_reason_why_a_peer_is_not_reached_is_named_alone(usual_pair: Pair, plugins: Path, case: Case) -> None:
    with lent(usual_pair, plugins) as (doctor, other):
        node = doctor.node
        places: dict[str, Machine] = {NODE: node, PEER: other, WORLD: node.cluster.machine}
        for where, script in case.damage.items():
            places[where].run("sh", "-ec", script)
        [finding] = doctor.finds(case.finding)
        assert case.evidence in finding["evidence"]
        assert other.address() in finding["subject"]
        for where, script in case.remedy.items():
            places[where].run("sh", "-ec", script.replace("REMEDY", finding["remedy"].partition(" (")[0]))
        doctor.finds()
        for place in (node, other):
            place.run("ip", "link", "set", "eth0", "mtu", "1500")
        node.cluster.machine.run("ip", "link", "set", "port-other", "mtu", "1500")
        node.until(lambda: node.guest.reaches(other.guest), "the pods reach each other")


def test_a_program_that_has_the_port_of_the_tunnel_is_named(usual_pair: Pair, plugins: Path) -> None:
    """It may have it only while the device is down, where podwired leaves it for a moment."""
    with lent(usual_pair, plugins) as (doctor, _):
        node = doctor.node
        assert node.agent
        node.agent.signal("STOP")
        node.run("sh", "-ec", TAKE_PORT)
        node.agent.signal("CONT")
        [finding] = doctor.finds("tunnel-port-taken")
        assert "(python3) has UDP port 8472" in finding["evidence"]
        node.run("sh", "-ec", "kill $(cat /run/taker)")
        doctor.finds()


def test_an_agent_that_does_not_answer_is_named(usual_pair: Pair, plugins: Path) -> None:
    with lent(usual_pair, plugins) as (doctor, _):
        assert doctor.node.agent
        doctor.node.agent.signal("STOP")
        assert doctor.names() == ["agent-silent"]
        doctor.node.agent.signal("CONT")
        doctor.finds()


def test_a_store_that_does_not_answer_is_named(usual_pair: Pair, plugins: Path) -> None:
    with lent(usual_pair, plugins) as (doctor, _):
        etcd = doctor.node.cluster.etcd
        etcd.stop()
        [finding] = doctor.finds("store-unreachable")
        assert "etcd" in finding["subject"]
        etcd.start()
        doctor.finds()


def test_a_strict_filter_of_the_reverse_path_is_named(usual_pair: Pair, plugins: Path) -> None:
    """The node's second interface leads to the peer; its answers come back by the first."""
    with lent(usual_pair, plugins) as (doctor, other):
        node, world = doctor.node, doctor.node.cluster.machine
        world.run(
            "sh",
            "-ec",
            f"ip link add port2 type veth peer name eth1 netns {node.inside}; ip link set port2 master wire up",
        )
        node.run(
            "sh", "-ec", "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.rp_filter=1; ip link set eth1 up"
        )
        node.run("sh", "-ec", f"ip route add {other.address()}/32 dev eth1 src {node.address()}; ip neigh flush all")
        other.run("ip", "neigh", "flush", "all")
        [finding] = doctor.finds("rp-filter-drops")
        assert (finding["subject"], other.address() in finding["evidence"]) == ("eth0", True)
        node.run("sh", "-ec", finding["remedy"].partition(" (")[0])
        doctor.finds()
        node.run(
            "sh", "-ec", "ip link delete eth1; sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.rp_filter=0"
        )


def test_a_second_agent_that_knows_nothing_of_the_first_is_named(
    usual_pair: Pair, plugins: Path, podwired: Path
) -> None:
    """Locks are files, and a container may have folders of its own. Without these the second one ends by itself."""
    with lent(usual_pair, plugins) as (doctor, _):
        node = doctor.node
        where = f"--etcd-endpoints={node.cluster.etcd.endpoint}"
        second = [str(podwired), where, "--iface=eth0", MASQUERADE]
        hidden = (
            "mkdir -p /run/podwire /run/flannel; for one in podwire flannel; do mount -t tmpfs none /run/$one; done"
        )
        agent = Program(node, "second", "unshare", "--mount", "sh", "-ec", f'{hidden}; exec "$@"', "sh", *second)
        node.until(lambda: "pods can be attached" in agent.log, "the second agent is ready")
        [finding] = doctor.finds("agent-twice")
        assert "/run/flannel/subnet.env" in finding["evidence"]
        assert "VNI 1" in finding["evidence"]
        node.run("sh", "-ec", finding["remedy"].partition(" (")[0])
        doctor.finds()
        refused = Program(node, "third", *second)
        assert doctor.names() == []  # while it waits for the lock
        node.until(lambda: not refused.runs, "the third agent is refused")


def attached(cluster: Cluster, podwired: Path, delegate: Json) -> list[Node]:
    """Returns two nodes with podwired and two pods each."""
    nodes = cluster.add("node", "other")
    for node in nodes:
        node.start_agent(podwired, MASQUERADE)
        for name in ("web", "db"):
            node.attach(name, delegate)
    cluster.until(cluster.is_whole, "all pods reach each other")
    return nodes


ROUTED: Json = {"type": "ptp"}
BRIDGED: Json = {"type": "bridge", "isGateway": True, "isDefaultGateway": True}


@pytest.mark.parametrize(
    ("backend", "families", "delegate"),
    [("vxlan", (4, 6), ROUTED), ("host-gw", (6,), BRIDGED)],
    ids=["VXLAN, two families, routed", "host-gw, IPv6 alone"],
)
def test_a_peer_is_reached_or_not_with_any_backend_and_family(
    cluster: Cluster, podwired: Path, plugins: Path, backend: str, families: tuple[int, ...], delegate: Json
) -> None:
    cluster.configure({"Type": backend}, families)
    node, other = attached(cluster, podwired, delegate)
    doctor = Doctor(node, plugins)
    assert doctor.names() == []
    with broken_card(node, "" if backend == "vxlan" else other.mac):
        [finding] = doctor.finds("checksum-offload")
        assert finding["subject"] == ("flannel-v6.1 and flannel.1" if backend == "vxlan" else "eth0")
        if shutil.which("ethtool"):
            node.run("sh", "-ec", finding["remedy"].partition(" (")[0])
            doctor.finds()
    if backend == "vxlan":
        other.run("sh", "-ec", PORT_FILTER % "drop")
        [finding] = doctor.finds("tunnel-filtered")
        assert "1 of 1 peers: no answer by flannel-v6.1 and flannel.1" in finding["evidence"]
        other.run("sh", "-ec", NO_FILTER)
    cluster.machine.run("ip", "link", "set", "port-other", "mtu", "1400")
    [finding] = doctor.finds("path-mtu")
    node.run("sh", "-ec", finding["remedy"].partition(" (")[0])
    doctor.finds()
    cluster.machine.run("ip", "link", "set", "port-other", "down")
    doctor.finds("peer-unreachable")


def test_flannels_own_agent_is_no_ailment_unless_podwired_is_beside_it(
    cluster: Cluster, flanneld: Path, podwired: Path, plugins: Path
) -> None:
    cluster.configure()
    node, _ = cluster.populate({"node": flanneld, "other": podwired})
    doctor = Doctor(node, plugins)
    assert doctor.names() == []
    where = [f"--etcd-endpoints={cluster.etcd.endpoint}", "--iface=eth0", MASQUERADE]
    second = Program(node, "second", str(podwired), *where)
    node.until(lambda: "pods can be attached" in second.log, "podwired is ready")
    [finding] = doctor.finds("agent-twice")
    assert "/run/flannel/subnet.env" in finding["evidence"]
    node.stop_agent()
    doctor.finds()
