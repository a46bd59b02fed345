"""podwired and the real flanneld: side by side in one cluster, and one in the other's place while traffic runs."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.system.nodes import MASQUERADE, POD_PORT, SUBNET_ENV, WIRE
from tests.system.overlay import DEVICE, ifindex, lossless, seen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster, Node

WAYS = [
    pytest.param({"Type": "vxlan"}, (4,), id="vxlan"),
    pytest.param({"Type": "vxlan"}, (4, 6), id="vxlan-dual"),
    pytest.param({"Type": "vxlan", "DirectRouting": True}, (4,), id="vxlan-direct"),
    pytest.param({"Type": "host-gw"}, (4,), id="host-gw"),
    pytest.param({"Type": "host-gw"}, (4, 6), id="host-gw-dual"),
]
MAC = re.compile("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
PODWIREDS = "table inet podwired"
FLANNELDS = ("flannel-ipv", "FLANNEL-")
TOLD, FITTING = "FLANNEL_MTU=1450\n", "FLANNEL_MTU=1430\n"  # with both families, IPv6's longer header counts
Backend = dict[str, object]


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.mark.parametrize(("backend", "families"), WAYS)
def test_podwired_takes_over_from_flanneld_without_a_lost_packet(
    cluster: Cluster, podwired: Path, flanneld: Path, backend: Backend, families: tuple[int, ...]
) -> None:
    cluster.configure(backend, families)
    first, second = cluster.populate({"here": flanneld, "there": flanneld})
    replace_agent(first, second, podwired, families)
    assert seen(first).of(PODWIREDS)
    first.until(lambda: not seen(first).of(*FLANNELDS), "flanneld's rules are gone")


@pytest.mark.parametrize("families", [(4,), (4, 6)], ids=["ipv4", "dual"])
def test_podwired_takes_over_from_a_flanneld_that_uses_iptables(
    cluster: Cluster, podwired: Path, flanneld: Path, families: tuple[int, ...]
) -> None:
    if shutil.which("iptables") is None:
        pytest.skip("not installed: iptables")
    cluster.configure({"Type": "vxlan"}, families, EnableNFTables=False)
    first, second = cluster.add("here", "there")
    if first.run("test", "-e", "/proc/sys/net/bridge/bridge-nf-call-iptables", check=False).returncode:
        pytest.skip("no bridge filters packets here, which flanneld demands (module br_netfilter)")
    for node in (first, second):
        node.start_agent(flanneld, MASQUERADE)
        node.attach()
    cluster.machine.serve(POD_PORT)
    cluster.until(cluster.is_whole, "all pods reach each other")
    assert seen(first).of(*FLANNELDS)
    replace_agent(first, second, podwired, families)
    first.until(lambda: not seen(first).of(*FLANNELDS), "flanneld's rules are gone")


@pytest.mark.parametrize(("backend", "families"), WAYS)
def test_pods_of_both_agents_reach_each_other_and_flanneld_takes_over_without_a_lost_packet(
    cluster: Cluster, podwired: Path, flanneld: Path, backend: Backend, families: tuple[int, ...]
) -> None:
    cluster.configure(backend, families)
    first, second = cluster.populate({"here": podwired, "there": flanneld})
    assert tuple(first.guest.addresses) == tuple(second.guest.addresses) == families
    replace_agent(first, second, flanneld, families)


def replace_agent(node: Node, other: Node, program: Path, families: tuple[int, ...]) -> None:
    """Replaces a node's agent under traffic both ways; nothing that others know of the node changes."""
    devices = [device for device in DEVICE.values() if device in links(node)]
    before = [ifindex(node, device) for device in devices]
    lease, env = node.lease(), node.subnet_env()
    with lossless(node.guest, other.guest), lossless(other.guest, node.guest, families[-1]):
        node.stop_agent()
        node.start_agent(program, MASQUERADE)
        node.until(node.cluster.is_whole, "pods reach each other")
    assert [ifindex(node, device) for device in devices] == before
    assert node.lease() == lease
    assert fitting(node.subnet_env(), families) == fitting(env, families)
    for family in families:
        assert node.guest.source_at(WIRE[family]) == node.address(family)


def fitting(env: str, families: tuple[int, ...]) -> str:
    """Returns the file that flanneld should write: its MTU is too large for the tunnel of IPv6."""
    return env.replace(TOLD, FITTING) if 6 in families else env


def links(node: Node) -> set[str]:
    return {link["ifname"] for link in json.loads(node.run("ip", "-j", "link").stdout)}


@pytest.mark.parametrize(("backend", "families"), WAYS)
def test_what_podwired_writes_is_byte_for_byte_what_flanneld_writes(
    cluster: Cluster, podwired: Path, flanneld: Path, backend: Backend, families: tuple[int, ...]
) -> None:
    """One subnet is free, so both take the same; only the VTEP's MAC address is each one's own."""
    only = {"SubnetMin": "10.244.7.0", "SubnetMax": "10.244.7.0"}
    only_ipv6 = {"IPv6SubnetMin": "fd00:244:0:7::", "IPv6SubnetMax": "fd00:244:0:7::"} if 6 in families else {}
    (node,) = cluster.add("node")
    written = []
    for program in (flanneld, podwired):
        cluster.etcd.clear()
        cluster.configure(backend, families, **only, **only_ipv6)
        node.start_agent(program, MASQUERADE)
        key, value = node.lease()
        written.append((key, MAC.sub("MAC", value), fitting(node.subnet_env(), families)))
        assert cluster.etcd.lives(key) > 23 * 3600
        node.stop_agent()
        forget(node)
    assert written[0] == written[1]


def forget(node: Node) -> None:
    """Takes away all by which a next agent would know what the last one had."""
    for device in links(node) & set(DEVICE.values()):
        node.run("ip", "link", "del", device)
    node.run("rm", SUBNET_ENV)
