"""Whatever is broken on a node, podwired makes whole again: at once, and nothing but that."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest

from tests.system.nodes import MASQUERADE, WIRE
from tests.system.overlay import seen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.conftest import Pair
    from tests.system.nodes import Cluster, Node

HEALED = 30.0  # seconds, a tenth of those between two full syncs
STRANGER = "192.168.100.99"


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


def run(command: str) -> Callable[[Node, Node], None]:
    """In the broken node; `{subnet}`, `{first}`, `{mac}` and `{address}` are those of the other."""

    def break_it(node: Node, other: Node) -> None:
        subnet = other.subnet()
        mac = other.run("cat", "/sys/class/net/flannel.1/address", check=False).stdout.strip()
        values = {"subnet": subnet, "first": subnet.partition("/")[0], "mac": mac, "address": other.address()}
        node.run("sh", "-ec", command.format(**values))

    return break_it


def down_and_up(node: Node, _: Node) -> None:
    """The kernel removes the routes with the link; those that are not the agent's come back with the address."""
    node.run("ip", "link", "set", "eth0", "down")
    node.run("ip", "link", "set", "eth0", "up")
    node.address_wire()


def made_anew(node: Node, _: Node) -> None:
    node.unplug()
    node.plug()


VXLAN = {
    "the device is deleted": run("ip link del flannel.1"),
    "the device is down": run("ip link set flannel.1 down"),
    "the device was down": run("ip link set flannel.1 down; ip link set flannel.1 up"),
    "the device has another MAC address": run("ip link set flannel.1 address 02:00:00:00:00:99"),
    "the device has another MTU": run("ip link set flannel.1 mtu 1300"),
    "the device has no address": run("ip address flush dev flannel.1"),
    "the device has an address too many": run("ip address add 10.244.99.0/32 dev flannel.1"),
    "the device is another's": run(
        # The agent may be quicker, and have its own back before another is there.
        "until ip link add flannel.1 type vxlan id 7 dstport 4789 dev eth0; do ip link del flannel.1 || true; done"
    ),
    "a neighbour is gone": run("ip neighbour del {first} dev flannel.1"),
    "a neighbour is another": run("ip neighbour replace {first} lladdr 02:00:00:00:00:99 nud permanent dev flannel.1"),
    "all neighbours are gone": run("ip neighbour flush nud permanent dev flannel.1"),
    "an FDB entry is gone": run("bridge fdb del {mac} dev flannel.1 dst {address} self"),
    "an FDB entry leads elsewhere": run(f"bridge fdb replace {{mac}} dev flannel.1 dst {STRANGER} self permanent"),
    "an FDB entry leads to two places": run(f"bridge fdb append {{mac}} dev flannel.1 dst {STRANGER} self permanent"),
    "the routes are gone": run("ip route flush dev flannel.1"),
    "a route leads elsewhere": run("ip route replace {subnet} via 192.168.100.1"),
    "the wire was down": down_and_up,
    "the wire is another": made_anew,
    "all rules are gone": run("nft flush ruleset"),
}
HOST_GW = {
    "the routes are gone": run("ip route flush proto 80"),
    "a route leads elsewhere": run("ip route replace {subnet} via 192.168.100.1"),
    "a route leads nowhere": run("ip route replace blackhole {subnet}"),
    "the wire was down": down_and_up,
    "the wire is another": made_anew,
    "all rules are gone": run("nft flush ruleset"),
}


def assert_heals(node: Node, other: Node, break_it: Callable[[Node, Node], None]) -> None:
    """The node is as it was, and so is the way to its pod."""
    cluster, before = node.cluster, seen(node)
    break_it(node, other)
    try:
        cluster.until(lambda: seen(node) == before and cluster.is_whole(), "the node is as before", HEALED)
    except AssertionError as error:
        now = seen(node)
        error.add_note("\n".join(["lacking:", *(before - now), "too many:", *(now - before)]))
        raise


@pytest.mark.parametrize("break_it", VXLAN.values(), ids=VXLAN)
def test_what_is_broken_of_a_tunnel_is_made_whole(vxlan_pair: Pair, break_it: Callable[[Node, Node], None]) -> None:
    with vxlan_pair.lent() as (node, other):
        assert_heals(node, other, break_it)


@pytest.mark.parametrize("break_it", HOST_GW.values(), ids=HOST_GW)
def test_what_is_broken_of_direct_routes_is_made_whole(
    host_gw_pair: Pair, break_it: Callable[[Node, Node], None]
) -> None:
    with host_gw_pair.lent() as (node, other):
        assert_heals(node, other, break_it)


def test_both_families_are_made_whole(cluster: Cluster, podwired: Path) -> None:
    cluster.configure(families=(4, 6))
    node, other, _ = cluster.populate(dict.fromkeys(["node", "other", "third"], podwired))
    assert_heals(node, other, made_anew)
    for command in ("ip link del flannel-v6.1", "ip -6 route flush proto 80", "ip link set flannel-v6.1 down"):
        assert_heals(node, other, run(command))


def test_what_breaks_again_and_again_is_made_whole_each_time(vxlan_pair: Pair) -> None:
    with vxlan_pair.lent() as (node, other):
        for name in ("the device is deleted", "all neighbours are gone", "the routes are gone", "the device is down"):
            for _ in range(2):
                assert_heals(node, other, VXLAN[name])


@pytest.mark.parametrize("mtu", [1400, 9000])
def test_the_mtu_follows_that_of_the_wire(cluster: Cluster, podwired: Path, mtu: int) -> None:
    cluster.configure()
    node, _ = cluster.populate({"node": podwired, "other": podwired})
    cluster.machine.run("ip", "link", "set", "port-node", "mtu", str(mtu))
    node.run("ip", "link", "set", "eth0", "mtu", str(mtu))

    def follows() -> bool:
        device = node.run("cat", "/sys/class/net/flannel.1/mtu").stdout.strip()
        return device == str(mtu - 50) and f"FLANNEL_MTU={mtu - 50}\n" in node.subnet_env()

    cluster.until(follows, "the device and subnet.env have the wire's MTU", HEALED)
    assert cluster.is_whole()


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_all_nodes_follow_one_whose_address_changes(cluster: Cluster, podwired: Path, backend: str) -> None:
    cluster.configure({"Type": backend})
    node, other = cluster.populate({"node": podwired, "other": podwired})
    subnet, old, (key, _) = node.subnet(), node.address(), node.lease()
    node.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
    node.number = 50
    node.address_wire()
    cluster.until(lambda: cluster.is_whole() and not seen(other).of(f'"{old}"'), "the other node knows", HEALED)
    assert node.lease()[0] == key
    assert node.subnet() == subnet
    assert node.guest.source_at(WIRE[4]) == node.address()


def test_what_is_not_the_agents_is_left_alone(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    node, other = cluster.populate({"node": podwired, "other": podwired})
    node.run(
        "sh",
        "-ec",
        """
        ip link add foreign type vxlan id 7 dstport 4789 dev eth0
        ip address add 198.51.100.1/24 dev foreign
        ip link set foreign up
        bridge fdb append 02:00:00:00:00:77 dev foreign dst 192.168.100.77 self permanent
        ip neighbour add 198.51.100.7 lladdr 02:00:00:00:00:77 nud permanent dev foreign
        ip route add 203.0.113.0/24 via 192.168.100.1 proto static
        ip route add 10.244.250.0/24 via 192.168.100.1
        ip route add 10.244.251.0/24 via 198.51.100.7 dev foreign proto bgp
        nft add table inet foreign
        """,
    )
    for error in ("the routes are gone", "the device is deleted", "an FDB entry is gone"):
        assert_heals(node, other, VXLAN[error])
    before = seen(node)
    node.stop_agent()
    node.start_agent(podwired, MASQUERADE)
    assert seen(node) == before


def test_it_is_not_ready_while_its_interface_is_gone(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    node, _ = cluster.populate({"node": podwired, "other": podwired})
    steps: list[tuple[Callable[[], None], Callable[[], None]]] = [
        (node.unplug, node.plug),
        (lambda: set_wire(node, "down"), lambda: up_again(node)),
    ]
    for go, back in steps:
        go()
        node.until(lambda: node.probe("readyz")[0] == http.client.SERVICE_UNAVAILABLE, "it is not ready")
        assert node.probe("healthz")[0] == http.client.OK
        back()
        node.until(lambda: node.probe("readyz")[0] == http.client.OK, "it is ready again")
    cluster.until(cluster.is_whole, "pods are reached")


def set_wire(node: Node, state: str) -> None:
    node.run("ip", "link", "set", "eth0", state)


def up_again(node: Node) -> None:
    set_wire(node, "up")
    node.address_wire()


def test_what_follows_from_a_changed_configuration_is_not_counted_as_healed(cluster: Cluster, podwired: Path) -> None:
    cluster.configure()
    node, other = cluster.populate({"node": podwired, "other": podwired})
    before = healed(node)
    cluster.configure({"Type": "vxlan", "DirectRouting": True})
    route = ("ip", "route", "show", other.subnet())
    node.until(lambda: "dev eth0" in node.run(*route).stdout, "the route is direct")
    assert healed(node) == before
    node.run("ip", "route", "del", other.subnet())
    node.until(lambda: healed(node) == before + 1, "the route is made whole and that is counted")


def test_peers_that_go_and_an_own_address_that_changes_are_not_counted_as_healed(
    cluster: Cluster, podwired: Path
) -> None:
    cluster.configure()
    node, other, third = cluster.populate(dict.fromkeys(["node", "other", "third"], podwired))
    before, gone, old = healed(node), third.subnet(), node.address()
    node.run("sh", "-ec", f"ip link add br9 type bridge; ip address add {gone.replace('.0/', '.1/')} dev br9")
    node.run("ip", "link", "set", "br9", "up")
    route = ("ip", "route", "show", gone)
    node.until(lambda: "flannel" not in node.run(*route).stdout, "a network of the node's own takes a peer's place")
    node.until(lambda: node.probe("readyz")[0] == http.client.OK, "it is ready")
    node.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
    node.number = 50
    node.address_wire()
    other.until(lambda: seen(other).of(f'"{node.address()}"') and not seen(other).of(f'"{old}"'), "the other knows")
    assert healed(node) == before


def healed(node: Node) -> float:
    lines = node.probe("metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("podwired_healed_total "))
