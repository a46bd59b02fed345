"""Hosts that drop what they forward, and who on them can talk to whom."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.echo import ask_all
from tests.machine import until
from tests.netns.runtime import DUAL, attachment, host_local, network

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Node

LEGACY_TABLES = "/proc/net/ip_tables_names"


def need_iptables_legacy(machine: Machine) -> None:
    """Skips the test where the older iptables is missing, or the kernel does not tell of its tables."""
    if not shutil.which("iptables-legacy") or machine.run("iptables-legacy", "-S", check=False).returncode:
        pytest.skip("there is no iptables-legacy, or the kernel has none")
    if machine.run("cat", LEGACY_TABLES, check=False).returncode:
        pytest.skip("needs root: the tables of iptables-legacy are not told of in a user namespace")


OUTSIDE4, OUTSIDE6 = "192.0.2.2", "2001:db8:2::2"
ONE = network("one", bridge="br-one", isDefaultGateway=True, ipam=DUAL)
TWO = network(
    "two",
    bridge="br-two",
    isDefaultGateway=True,
    ipam=host_local([{"subnet": "10.5.0.0/24"}], [{"subnet": "2001:db8:5::/64"}]),
)
SUBNETS = ("10.1.2.0/24", "10.5.0.0/24", "2001:db8:1::/64", "2001:db8:5::/64")
DROP = "type filter hook forward priority 0; policy drop;"

# How administrators have their hosts drop: by iptables as Docker does, or by nft in chains of the usual names.
NATIVE = {
    "inet": f"add table inet filter; add chain inet filter forward {{ {DROP} }}",
    "inet in iptables' style": f"add table inet filter; add chain inet filter FORWARD {{ {DROP} }}",
    "by family": "; ".join(
        f"add table {family} filter; add chain {family} filter forward {{ {DROP} }}" for family in ("ip", "ip6")
    ),
}
NEEDS_IPTABLES = pytest.mark.skipif(not shutil.which("iptables-nft"), reason="iptables-nft is not installed")
FIREWALLS = [pytest.param("iptables", marks=NEEDS_IPTABLES), *NATIVE]


def drop(machine: Machine, firewall: str) -> None:
    """Makes the host drop what it forwards."""
    if firewall in NATIVE:
        machine.run("nft", NATIVE[firewall])
    else:
        for program in ("iptables-nft", "ip6tables-nft"):
            machine.run(program, "-P", "FORWARD", "DROP")


def rules(machine: Machine) -> str:
    return machine.run("nft", "-s", "list", "ruleset").stdout


def reaches(pod: Pod, address: str, port: int = 8080) -> bool:
    return all(answers(pod.machine, (pod, address), port=port))


def answers(machine: Machine, *questions: tuple[Pod, str], port: int = 8080) -> list[bool]:
    """Returns for each pod and address if the pod gets an answer from there."""
    return machine.call(ask_all, [(pod.path, address, port) for pod, address in questions], 1.2)  # one SYN more


class World(NamedTuple):
    """A host behind a wire that knows the way to containers, and two of these on different bridges."""

    machine: Machine
    node: Node
    outside: Pod
    pods: tuple[Pod, Pod]


def skip_detection(machine: Machine) -> None:
    """Lets new interfaces use their IPv6 addresses at once; detecting duplicates takes a second or two."""
    machine.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0")


def crossing(machine: Machine, node: Node) -> World:
    """Builds it; whatever serves does so at port 8080."""
    skip_detection(machine)
    outside = machine.outside()
    gateways = [(subnet, "2001:db8:2::1" if ":" in subnet else "192.0.2.1") for subnet in SUBNETS]
    outside.run("ip", "-batch", "-", stdin="".join([f"route add {net} via {gateway}\n" for net, gateway in gateways]))
    pods = machine.pod("pod1"), machine.pod("pod2")
    for pod in (outside, *pods):
        pod.serve(8080)
    return World(machine, node, outside, pods)


def attach(world: World, program: str = "podwire") -> None:
    for config, pod in zip((ONE, TWO), world.pods, strict=True):
        world.node.add(config, attachment(pod), program=program)
    settle(world.machine)


def settle(machine: Machine) -> None:
    """Waits until the bridges may use their IPv6 addresses."""
    until(lambda: not machine.run("ip", "-6", "address", "show", "tentative").stdout, "no address is tentative")


def paths(world: World) -> list[bool]:
    """Returns who can talk: out of a container, into one, and from bridge to bridge, by IPv4 and IPv6."""
    first, second = world.pods
    return answers(
        world.machine,
        (first, OUTSIDE4),
        (first, OUTSIDE6),
        (world.outside, "10.1.2.2"),
        (world.outside, "2001:db8:1::2"),
        (first, "10.5.0.2"),
        (second, "2001:db8:1::2"),
    )


def no_programs() -> None:
    from cni import proc

    def refuse(*_: object, **__: object) -> proc.CompletedProcess:
        raise AssertionError("a program")

    proc.run = refuse
