"""Whatever runtimes ask for in whatever order: when all containers are gone, the machine is as it was."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import IPV4, IPV6, Attachment, host_local, network
from tests.netns.state import difference, held_by, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

    Step = Callable[["Kind", str, str], None]

STEPS = 30
PODS = 4
CAPABILITIES = {"portMappings": True, "bandwidth": True}
LIMITS = {"ingressRate": 10**8, "ingressBurst": 10**6, "egressRate": 10**8, "egressBurst": 10**6}


class Kind:
    """A network as one configuration or as a chain: (program, settings) in the order of ADD."""

    def __init__(self, name: str, plugins: tuple[tuple[str, Json], ...]) -> None:
        self.name = name
        self.plugins = plugins

    def configs(self, port: int) -> list[tuple[str, Json]]:
        """Returns each plugin's configuration for a container with this host port."""
        runtime_config = {
            "portMappings": [
                {"hostPort": port, "containerPort": 80, "protocol": protocol} for protocol in ("tcp", "udp")
            ],
            "bandwidth": LIMITS,
        }
        common = {"capabilities": CAPABILITIES, "runtimeConfig": runtime_config}
        return [(program, network(self.name, type=program, **common, **settings)) for program, settings in self.plugins]


KINDS = (
    Kind("one", (("podwire", {"isDefaultGateway": True, "ipMasq": True, "ipam": host_local(IPV4, IPV6)}),)),
    Kind(
        "two",
        (
            ("bridge", {"bridge": "cni1", "isGateway": True, "ipMasq": True, "macspoofchk": True,
                        "ipam": host_local([{"subnet": "10.2.0.0/16"}])}),
            ("portmap", {}),
            ("bandwidth", {}),
            ("tuning", {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400}),
        ),
    ),
    Kind("three", (("ptp", {"ipMasq": True, "ipam": host_local([{"subnet": "10.3.0.0/16"}])}), ("portmap", {}))),
    Kind("four", (("podwire", {"mode": "routed", "ipam": host_local([{"subnet": "10.4.0.0/16"}])}),)),
)  # fmt: skip


class Runtime:
    """Adds and deletes as libcni does; the containers that live, and what ADD answered."""

    def __init__(self, node: Node, chance: random.Random) -> None:
        self.node = node
        self.chance = chance
        self.attached = 0
        self.living: dict[tuple[Kind, str, str], Json] = {}

    def attachment(self, pod: str, interface: str) -> Attachment:
        return Attachment(pod, self.node.machine.pods[pod].path, interface)

    def add(self, kind: Kind, pod: str, interface: str) -> None:
        """Adds; where a plugin refuses (the container has it already, the port is taken), deletes as runtimes do."""
        if (kind, pod, interface) in self.living:
            return
        result: Json = {}
        for program, config in kind.configs(self.port(kind, pod)):
            request = {**config, **({"prevResult": result} if result else {})}
            answer = self.node.call("ADD", request, self.attachment(pod, interface), program=program)
            if answer.status:
                self.delete(kind, pod, interface)
                return
            result = answer.content
        self.living[kind, pod, interface] = result
        self.attached += 1

    def port(self, kind: Kind, pod: str) -> int:
        """Sometimes another's, so that it is refused."""
        return 8000 + 10 * KINDS.index(kind) + self.chance.choice([int(pod[-1]), 0])

    def delete(self, kind: Kind, pod: str, interface: str) -> None:
        """Deletes, at times without what a runtime may have forgotten."""
        result = self.living.pop((kind, pod, interface), None)
        for program, config in reversed(kind.configs(1)):
            request = {key: value for key, value in config.items() if key != "runtimeConfig"}
            if result and self.chance.random() < 0.7:
                request["prevResult"] = result
            self.node.call("DEL", request, self.attachment(pod, interface), program=program).succeeded()

    def collect(self, kind: Kind, pod: str, interface: str) -> None:
        """Collects on the network: the chosen container's attachment is no longer valid."""
        self.living.pop((kind, pod, interface), None)
        valid = [{"containerID": pod, "ifname": name} for of, pod, name in self.living if of == kind]
        for program, config in kind.configs(1):
            self.node.call("GC", {**config, "cni.dev/valid-attachments": valid}, program=program).succeeded()

    def lose(self, kind: Kind, pod: str, interface: str) -> None:
        """The container's interface goes without a word, and DEL comes later."""
        self.node.machine.pods[pod].run("ip", "link", "delete", interface, check=False)
        self.delete(kind, pod, interface)


@pytest.mark.parametrize("seed", range(4))
def test_when_all_are_gone_the_machine_is_as_it_was(machine: Machine, node: Node, seed: int) -> None:
    chance = random.Random(seed)
    runtime = Runtime(node, chance)
    for number in range(1, PODS + 1):
        machine.pod(f"pod{number}").run("ip", "link", "set", "lo", "up")
    first = "pod1"
    for kind in KINDS:  # what containers share stays, so it has to be there before
        runtime.add(kind, first, "eth9")
        runtime.delete(kind, first, "eth9")
    before = whole(machine)
    often: list[Step] = [runtime.add] * 4
    seldom: list[Step] = [runtime.delete, runtime.collect, runtime.lose]
    for _ in range(STEPS):
        kind, number = chance.choice(KINDS), chance.randint(1, PODS)
        chance.choice(often + seldom)(kind, f"pod{number}", f"eth{KINDS.index(kind)}")
    assert runtime.attached > len(KINDS) + 5
    for kind, pod, interface in list(runtime.living):
        runtime.delete(kind, pod, interface)
    assert difference(before, whole(machine)) == []
    assert held_by(machine, *(f"pod{number}/eth{index}" for number in range(PODS + 1) for index in range(4))) == []
