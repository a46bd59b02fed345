"""Machines without the program nft: the bundle serves every feature that needs rules."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import Machine, MachineError, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.machine import Pod

Json = dict[str, Any]

FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
MAPPED: Json = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
NETWORK: Json = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "podwire",
    "isDefaultGateway": True,
    "ipMasq": True,
    "macspoofchk": True,
    "capabilities": {"portMappings": True},
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]},
}


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Gives a machine in whose folders nft cannot be executed."""
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        folders = {*FOLDERS, *os.environ["PATH"].split(":")}
        for folder in folders:
            if machine.run("test", "-e", f"{folder}/nft", check=False).returncode == 0:
                machine.run("mount", "--bind", "/dev/null", f"{folder}/nft")
        yield machine


def called(machine: Machine, bundle: Path, verb: str, config: Json, pod: Pod, program: str = "podwire") -> Json:
    """Returns the answer of a call that has to succeed."""
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": pod.name,
        "CNI_NETNS": pod.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
        "PATH": "/nowhere",
    }
    named = [f"{name}={value}" for name, value in environment.items()]
    script = f"exec -a {program} {bundle}/podwire"
    done = machine.run("env", "-i", *named, "/bin/bash", "-c", script, stdin=json.dumps(config), check=False)
    assert done.returncode == 0, (verb, done.stdout, done.stderr)
    answer: Json = json.loads(done.stdout or "{}")
    return answer


def test_every_verb_serves_masquerade_ports_and_the_spoof_check(machine: Machine, bundle: Path) -> None:
    assert machine.run("nft", "list", "ruleset", check=False).returncode
    pod, config = machine.pod("pod1"), {**NETWORK, "runtimeConfig": MAPPED}
    called(machine, bundle, "STATUS", config, pod)
    result = called(machine, bundle, "ADD", config, pod)
    called(machine, bundle, "CHECK", {**config, "prevResult": result}, pod)
    valid = {"cni.dev/valid-attachments": [{"containerID": "pod1", "ifname": "eth0"}]}
    called(machine, bundle, "GC", {**config, **valid}, pod)
    called(machine, bundle, "CHECK", {**config, "prevResult": result}, pod)
    called(machine, bundle, "DEL", {**config, "prevResult": result}, pod)


def test_pods_are_masqueraded_and_reached_by_their_ports(machine: Machine, bundle: Path) -> None:
    outside, pod = machine.outside(), machine.pod("pod1")
    outside.serve(8080)
    called(machine, bundle, "ADD", {**NETWORK, "runtimeConfig": MAPPED}, pod)
    pod.serve(80)
    assert pod.ask("192.0.2.2", 8080) == "192.0.2.1"
    assert outside.ask("192.0.2.1", 8080) == "192.0.2.2"


def test_chained_plugins_map_ports_and_isolate_bridges(machine: Machine, bundle: Path) -> None:
    outside, pods, chains = machine.outside(), [machine.pod(name) for name in ("pod1", "pod2")], []
    for pod, bridge, subnet in zip(pods, ("br-one", "br-two"), ("10.1.2.0/24", "10.1.3.0/24"), strict=True):
        ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
        network = {**NETWORK, "name": bridge, "bridge": bridge, "ipam": ipam}
        result = called(machine, bundle, "ADD", {**network, "type": "bridge"}, pod, "bridge")
        chains.append({**network, "prevResult": result})
        pod.serve(80)
    assert pods[1].ask("10.1.2.2", 80)
    portmap = {**chains[0], "type": "portmap", "runtimeConfig": MAPPED}
    isolated = {"type": "firewall", "ingressPolicy": "isolated"}
    firewalls = [("firewall", chain | isolated, pod) for chain, pod in zip(chains, pods, strict=True)]
    chained = [("portmap", portmap, pods[0]), *firewalls]
    for program, config, pod in chained:
        for verb in ("STATUS", "ADD", "CHECK"):
            called(machine, bundle, verb, config, pod, program)
    assert outside.ask("192.0.2.1", 8080) == "192.0.2.2"
    with pytest.raises(MachineError):
        pods[1].ask("10.1.2.2", 80, seconds=0.5)
    for program, config, pod in reversed(chained):
        called(machine, bundle, "DEL", config, pod, program)
    with pytest.raises(MachineError):
        outside.ask("192.0.2.1", 8080, seconds=0.5)
