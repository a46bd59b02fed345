"""The networks of well-known projects, unchanged, with podwire as every plugin: traffic, and what remains."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.machine import MachineError
from tests.system.networks import MTU, NETWORKS, RATE, TUNED, runtime_config
from tests.system.plugins import CniTool, address_of
from tests.system.reach import PORT, cnitool_for, expected, measured, populate
from tests.system.shared import links_of, seen, without_pod
from tests.traffic import NOBODY, PROTOCOLS, rate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.networks import Network

NEAR = 0.15  # of a rate


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    return NETWORKS[request.param]


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.fixture
def cnitool(machine: Machine, peers: Path, plugins: Path, network: Network, tmp_path: Path) -> CniTool:
    return cnitool_for(machine, (peers / "cnitool", plugins), network.chain, tmp_path)


@pytest.fixture
def podman(machine: Machine, peers: Path, plugins: Path, tmp_path: Path) -> CniTool:
    """Returns the longest of the chains: bridge, portmap, bandwidth, firewall, tuning."""
    return cnitool_for(machine, (peers / "cnitool", plugins), NETWORKS["podman"].chain, tmp_path)


def test_everybody_reaches_whom_he_should_and_is_seen_as_he_should(
    each_machine: Machine, peers: Path, plugins: Path, network: Network, tmp_path: Path
) -> None:
    world = populate(cnitool_for(each_machine, (peers / "cnitool", plugins), network.chain, tmp_path), network)
    assert measured(world, network) == expected(network)


@pytest.mark.parametrize(
    ("program", "kind", "name"),
    [
        ("iptables", "chain", "podman"),
        ("iptables", "single", "podman"),
        ("ip6tables", "chain", "containerd"),
        ("ip6tables", "single", "kind"),
    ],
)
def test_containers_are_reached_although_the_node_drops_what_it_forwards(
    machine: Machine, peers: Path, plugins: Path, tmp_path: Path, program: str, kind: str, name: str
) -> None:
    """Docker's node drops forwarded packets. In a chain firewall accepts them, `type: podwire` does it itself.

    As the reference's, it leaves it to the node who may begin a connection to a container from outside.
    """
    network = NETWORKS[name]
    conflist = network.conflist(kind)
    if kind == "chain" and {"type": "firewall"} not in conflist["plugins"]:
        conflist = {**conflist, "plugins": [*conflist["plugins"], {"type": "firewall"}]}
    machine.run(program, "-P", "FORWARD", "DROP")
    world = populate(cnitool_for(machine, (peers / "cnitool", plugins), conflist, tmp_path), network)
    wanted = expected(network)
    if kind == "chain":
        family = "6" if program == "ip6tables" else "4"
        closed = {f"{protocol}{family} {to}:80": NOBODY for protocol in PROTOCOLS for to in ("server", "neighbour")}
        wanted["outside"] |= closed
    assert measured(world, network) == wanted


def test_what_passes_is_what_the_runtime_allows(podman: CniTool) -> None:
    pod = podman.machine.pod()
    answer = podman("add", pod, runtime_config(PORT))
    least, most = RATE * (1 - NEAR), RATE * (1 + NEAR)
    assert least < rate(podman.machine, pod, address_of(answer), least) < most
    assert least < rate(pod, podman.machine, answer["ips"][0]["gateway"], least) < most


def test_a_container_is_tuned(podman: CniTool) -> None:
    pod = podman.machine.pod()
    answer = podman("add", pod, runtime_config(PORT))
    settings = [TUNED.replace("IFNAME", name) for name in ("eth0", "lo")]
    assert pod.run("sysctl", "-n", *settings).stdout.split() == ["1", "0"]
    (link,) = json.loads(pod.run("ip", "-j", "link", "show", "eth0").stdout)
    assert link["mtu"] == MTU
    assert link["address"] == next(
        interface["mac"] for interface in answer["interfaces"] if interface["name"] == "eth0"
    )


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.checks])
def test_check_finds_the_chain_as_add_left_it(
    machine: Machine, peers: Path, plugins: Path, tmp_path: Path, name: str
) -> None:
    cnitool = cnitool_for(machine, (peers / "cnitool", plugins), NETWORKS[name].chain, tmp_path)
    pod = machine.pod()
    cnitool("add", pod, runtime_config(PORT))
    cnitool("check", pod, runtime_config(PORT))


@pytest.mark.parametrize(
    "damage",
    [
        "nft delete element inet podwire hostports4 {{ tcp . 8080 }}",
        "tc qdisc delete dev {host} root",
        "ip -n pod1 link set eth0 mtu 1500",
        "ip netns exec pod1 sysctl -w net.ipv4.conf.eth0.arp_filter=0",
    ],
    ids=["portmap", "bandwidth", "tuning", "tuning's sysctl"],
)
def test_check_finds_what_one_of_the_chain_misses(podman: CniTool, damage: str) -> None:
    pod = podman.machine.pod("pod1")
    answer = podman("add", pod, runtime_config(PORT))
    podman.machine.run("sh", "-c", damage.format(host=answer["interfaces"][1]["name"]))
    with pytest.raises(MachineError, match="not as ADD made it"):
        podman("check", pod, runtime_config(PORT))


@pytest.mark.parametrize("how", ["told all", "told nothing of capabilities", "after the namespace has gone"])
def test_del_undoes_add_while_another_pod_lives(cnitool: CniTool, how: str) -> None:
    machine, pod = cnitool.machine, cnitool.machine.pod("goes")
    cnitool("add", machine.pod("stays"), runtime_config(8081))
    before, links = seen(machine), links_of(machine)
    cnitool("add", pod, runtime_config(PORT))
    assert pod.addresses()
    if how == "after the namespace has gone":
        pod.remove()
        before = without_pod(before, pod)
    for _ in range(2):
        cnitool("del", pod, runtime_config(PORT) if how == "told all" else None)
        machine.wait_for_links(*links)
        assert seen(machine) == before


def test_gc_takes_all_that_nobody_claims(cnitool: CniTool) -> None:
    """GC by cnitool names no valid attachment: libcni deletes all that its cache holds, then calls the plugins."""
    machine = cnitool.machine
    first, second = machine.pod(), machine.pod()
    cnitool("add", first, runtime_config(PORT))
    cnitool("del", first, runtime_config(PORT))
    before = seen(machine)
    cnitool("add", first, runtime_config(PORT))
    cnitool("add", second, runtime_config(8081))
    cnitool("gc", first)
    assert seen(machine) == before


def test_an_add_that_the_chain_refuses_half_way_is_undone_by_del(cnitool: CniTool) -> None:
    """The port is in use: the first plugin has attached the container already when portmap fails."""
    machine = cnitool.machine
    first, second = machine.pod(), machine.pod()
    cnitool("add", first, runtime_config(PORT))
    before = seen(machine)
    with pytest.raises(MachineError, match="8080 is taken"):
        cnitool("add", second, runtime_config(PORT))
    cnitool("del", second, runtime_config(PORT))
    assert seen(machine) == before
