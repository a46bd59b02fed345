"""A chain of podwire's plugins, the same network as one plugin, and the reference's chain have equal results."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.machine import Machine
from tests.system.networks import NETWORKS, runtime_config
from tests.system.reach import PORT, cnitool_for, measured, populate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.machine import Pod
    from tests.system.networks import Network
    from tests.system.plugins import CniTool, Json
    from tests.system.reach import Reach

PEERS = ("bridge", "ptp", "host-local", "portmap", "bandwidth", "firewall", "tuning")
KEPT_NAMES = ("eth0", "cni0", "cni-podman0")
REFERENCES = {name: network for name, network in NETWORKS.items() if network.reference}
MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Served(NamedTuple):
    """An attachment's result, the state in the pod, and the connections that work."""

    result: Json
    inside: list[str]
    reach: Reach


@pytest.fixture(scope="module")
def cnitool(peers: Path, plugins: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CniTool]:
    """Returns a function that makes cnitool on a machine, with podwire as every plugin or the reference plugins."""

    def make(machine: Machine, conflist: Json, *, reference: bool = False) -> CniTool:
        programs = peers / "cnitool", peers if reference else plugins
        return cnitool_for(machine, programs, conflist, tmp_path_factory.mktemp("network"))

    return make


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_one_plugin_does_what_the_chain_does(cnitool: Callable[..., CniTool], network: Network) -> None:
    def served(kind: str) -> Served:
        with Machine() as machine:
            world = populate(cnitool(machine, network.conflist(kind)), network)
            return Served(without_names(world.result), inside(world.server), measured(world, network))

    chain, single = served("chain"), served("single")
    assert single.result == chain.result
    assert single.inside == chain.inside
    assert single.reach == chain.reach


@pytest.mark.parametrize("network", REFERENCES.values(), ids=REFERENCES)
def test_the_references_chain_answers_the_same(cnitool: Callable[..., CniTool], peers: Path, network: Network) -> None:
    if absent := [name for name in PEERS if not (peers / name).exists()]:
        pytest.skip(f"absent: {', '.join(absent)} (hack/peers brings them)")

    def result(*, reference: bool) -> Json:
        with Machine() as machine:
            served = cnitool(machine, network.chain, reference=reference)
            return without_names(served("add", machine.pod(), runtime_config(PORT)))

    assert result(reference=False) == result(reference=True)


def inside(pod: Pod) -> list[str]:
    """Returns addresses and routes of a pod, and its interface's MTU."""
    shown = pod.machine.snapshot(())
    (link,) = json.loads(pod.run("ip", "-j", "link", "show", "eth0").stdout)
    lines = [line for line in shown["addresses"] + shown["routes"] if line.startswith(f"{pod.name}: ")]
    return [f"mtu {link['mtu']}", *lines]


def without_names(result: Json) -> Json:
    """Replaces values that each program chooses: names of the host's interfaces and MAC addresses.

    The order of the interfaces stays, and with it which of them an address belongs to. The reference tells no MTU.
    """
    interfaces = [
        {
            **{key: value for key, value in interface.items() if key != "mtu"},
            "name": interface["name"] if interface["name"] in KEPT_NAMES else "chosen",
            "mac": "some" if MAC.fullmatch(interface["mac"]) else interface["mac"],
        }
        for interface in result["interfaces"]
    ]
    return {**result, "interfaces": interfaces}
