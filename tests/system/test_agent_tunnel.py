"""The tunnel filter: only nodes of the cluster may send into the tunnel, pods least of all."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.machine import until
from tests.system.nodes import MASQUERADE, WIRE
from tests.system.overlay import DEVICE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine, Pod
    from tests.system.conftest import Pair
    from tests.system.nodes import Cluster, Node

VNI, PORT = 1, 8472
TRANSLATED = "203.0.113.5"

# An Ethernet frame to the tunnel's MAC address, in a VXLAN packet; with a source, that is what the packet bears.
_INJECT = """
import socket, struct, sys
mac, host, port, vni, source = sys.argv[1:]
frame = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020000000063") + bytes.fromhex("88b5") + bytes(50)
packet = struct.pack("!II", 0x08000000, int(vni) << 8) + frame
if source:
    packet = struct.pack("!HHHH", 7777, int(port), 8 + len(packet), 0) + packet
    ends = [socket.inet_aton(end) for end in (source, host)]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(packet), 1, 0, 64, 17, 0, *ends)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(head + packet, (host, 0))
else:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as plain:
        plain.sendto(packet, (host, int(port)))
"""


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


class Target:
    """A node's end of the tunnel: how many frames it has taken out of packets is what tells."""

    def __init__(self, node: Node, family: int = 4) -> None:
        self.node, self.family, self.device = node, family, DEVICE[family]
        self.mac = node.run("cat", f"/sys/class/net/{self.device}/address").stdout.strip()

    @property
    def taken(self) -> int:
        return int(self.node.run("cat", f"/sys/class/net/{self.device}/statistics/rx_packets").stdout)

    def inject(self, origin: Machine | Pod, *, host: str = "", vni: int = VNI, source: str = "") -> None:
        python = [sys.executable, "-I", "-S", "-c", _INJECT]
        origin.run(*python, self.mac, host or self.node.address(self.family), str(PORT), str(vni), source)

    def takes(self, origin: Machine | Pod, peer: Node, *, source: str = "") -> bool:
        """True if a frame of the origin is let in, and one of a peer that follows."""
        before = self.taken
        self.inject(origin, source=source)
        self.inject(peer)
        until(lambda: self.taken >= before + 2, "both frames are taken")
        return self.taken == before + 2

    def drops(self, origin: Machine | Pod, peer: Node, *, host: str = "", source: str = "", carried: int = 0) -> bool:
        """True if a frame of the origin is not let in; one of a peer that follows tells when it would have come.

        `carried`: frames in which the origin's packet itself comes by the tunnel.
        """
        before = self.taken + carried
        self.inject(origin, host=host, source=source)
        self.inject(peer)
        until(lambda: self.taken > before, "the peer's frame is taken")
        return self.taken == before + 1


def assert_takes_from_nodes_alone(node: Node, peer: Node, family: int) -> None:
    target = Target(node, family)
    assert target.takes(peer, peer)
    assert target.drops(node.cluster.machine, peer)
    assert target.drops(node.guest.pod, peer)
    assert target.drops(peer.guest.pod, peer)
    gateway = node.guest.addresses[family].rpartition("." if family == 4 else ":")
    assert target.drops(node.guest.pod, peer, host=f"{gateway[0]}{gateway[1]}1")


def test_a_frame_is_taken_from_nodes_and_from_nobody_else(vxlan_pair: Pair) -> None:
    with vxlan_pair.lent() as (node, peer):
        assert_takes_from_nodes_alone(node, peer, 4)


def test_a_frame_of_either_family_is_taken_from_nodes_and_from_nobody_else(cluster: Cluster, podwired: Path) -> None:
    cluster.configure(families=(4, 6))
    node, peer = cluster.populate({"node": podwired, "peer": podwired})
    for family in (4, 6):
        assert_takes_from_nodes_alone(node, peer, family)


def test_a_source_that_a_pod_makes_up_does_not_help_it(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    node, peer, third = cluster.populate(dict.fromkeys(["node", "peer", "third"], podwired))
    target = Target(node)
    gateway = f"{node.guest.addresses[4].rpartition('.')[0]}.1"
    for host, carried in ((gateway, 1), (node.address(), 0)):
        assert target.drops(node.guest.pod, peer, host=host, source=third.address())
        assert target.drops(peer.guest.pod, peer, host=host, source=third.address(), carried=carried)


def test_pods_use_the_tunnels_port_among_each_other(vxlan_pair: Pair) -> None:
    """Clusters run in pods, with tunnels of their own."""
    with vxlan_pair.lent() as (node, peer):
        peer.guest.pod.serve(PORT, "udp")
        assert node.guest.pod.ask(peer.guest.addresses[4], PORT, "udp") == node.guest.addresses[4]


def test_a_tunnel_of_others_on_the_same_port_is_left_alone(vxlan_pair: Pair) -> None:
    with vxlan_pair.lent() as (node, _):
        node.run("ip", "link", "add", "other", "type", "vxlan", "id", "7", "dev", "eth0", "dstport", str(PORT))
        node.run("ip", "link", "set", "other", "up")
        target = Target(node)
        target.device, target.mac = "other", node.run("cat", "/sys/class/net/other/address").stdout.strip()
        target.inject(node.cluster.machine, vni=7)
        until(lambda: target.taken, "the stranger's frame is taken by the other tunnel")
        node.run("ip", "link", "del", "other")


def test_switched_off_it_drops_nothing(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    node, peer = cluster.populate({"node": podwired, "peer": podwired}, MASQUERADE, "--tunnel-filter=false")
    target = Target(node)
    assert target.takes(cluster.machine, peer)
    assert target.takes(node.guest.pod, peer)


def filtered(node: Node) -> list[str]:
    """Returns the addresses whose packets are let in."""
    listed = node.run("nft", "list", "set", "inet", "podwired", "peers4", check=False).stdout
    return sorted(word.strip(",") for word in listed.split() if word.startswith(WIRE[4].rpartition(".")[0]))


@pytest.mark.parametrize(
    "spoil",
    [
        "flush ruleset",
        "delete table inet podwired",
        "flush set inet podwired peers4",
        "flush set inet podwired ports",
        "flush set inet podwired pods",
        "add element inet podwired peers4 { 192.168.100.1 }",
        "flush chain inet podwired tunnel",
    ],
)
def test_what_somebody_takes_away_is_put_back(vxlan_pair: Pair, spoil: str) -> None:
    with vxlan_pair.lent() as (node, peer):
        target, command = Target(node), ("nft", "-s", "list", "table", "inet", "podwired")
        before = node.run(*command).stdout
        assert filtered(node) == [peer.address()]
        node.run("nft", spoil)
        node.until(lambda: node.run(*command, check=False).stdout == before, "the filter is whole")
        assert target.drops(node.cluster.machine, peer)


def test_who_leaves_is_let_in_no_more_unless_another_has_his_address(vxlan_pair: Pair) -> None:
    value = {"PublicIP": WIRE[4] + "9", "PublicIPv6": None, "BackendType": "vxlan"}
    with vxlan_pair.lent() as (node, peer):
        cluster = node.cluster
        for number in (70, 71):
            data = {"VNI": VNI, "VtepMAC": f"02:00:00:00:00:{number}"}
            cluster.etcd.put(f"subnets/10.244.{number}.0-24", {**value, "BackendData": data})
            cluster.until(lambda: len(filtered(node)) == 2, "the new node is let in")
        for number in (70, 71):
            assert len(filtered(node)) == 2
            cluster.etcd.delete(f"subnets/10.244.{number}.0-24")
            cluster.until(lambda: f"10.244.{number}.0" not in node.run("ip", "route").stdout, "the route is gone")  # noqa: B023
        cluster.until(lambda: filtered(node) == [peer.address()], "the node is let in no more")


def test_without_nft_the_agent_filters_the_tunnel(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    nodes = cluster.add("node", "peer")
    for node in nodes:
        node.run("sh", "-c", "nft=$(command -v nft); mount --bind /dev/null $nft; echo $nft >/run/masked")
        node.start_agent(podwired)
        node.attach(delegate={"ipMasq": False})
    cluster.until(cluster.is_whole, "pods reach each other")
    assert [node.agent.log.count("are not filtered") for node in nodes if node.agent] == [0, 0]
    for node in nodes:
        node.run("sh", "-c", "umount $(cat /run/masked)")
    node, peer = nodes
    assert filtered(node) == [peer.address()]


def test_a_node_behind_nat_is_let_in_by_the_address_that_its_lease_tells(cluster: Cluster, podwired: Path) -> None:
    """Others see what the translation makes of its own address."""
    cluster.configure()
    node, peer = cluster.populate({"node": podwired, "peer": podwired})
    data = {"VNI": VNI, "VtepMAC": "02:00:00:00:00:70"}
    value = {"PublicIP": TRANSLATED, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
    target = Target(node)
    assert target.drops(cluster.machine, peer, source=TRANSLATED)
    cluster.etcd.put("subnets/10.244.70.0-24", value)
    cluster.until(lambda: "10.244.70.0" in node.run("ip", "route").stdout, "the new node is served")
    assert target.takes(cluster.machine, peer, source=TRANSLATED)
    assert target.drops(cluster.machine, peer)
