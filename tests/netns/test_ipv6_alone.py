"""Networks with IPv6 and no IPv4: every plugin name attaches, forwards, checks and releases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine import MachineError, until
from tests.netns.runtime import IPV6, attachment, host_local
from tests.netns.state import difference, held_by, whole

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Attachment, Json, Node

NODE, EXTERNAL = "2001:db8:2::1", "2001:db8:2::2"
SUBNET_ENV = f"""FLANNEL_IPV6_NETWORK=2001:db8:1::/48
FLANNEL_IPV6_SUBNET={IPV6[0]["subnet"].replace("::", "::1")}
FLANNEL_MTU=1400
FLANNEL_IPMASQ=false
"""
IPAM = host_local(IPV6, routes=[{"dst": "::/0"}])
RUNTIME = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80}],
    "bandwidth": {"ingressRate": 10**8, "ingressBurst": 10**6, "egressRate": 10**8, "egressBurst": 10**6},
}
OWN: Json = {"isDefaultGateway": True, "ipMasq": True, "ipam": host_local(IPV6), "runtimeConfig": RUNTIME}
# The plugins of a chain, of which podwire itself serves ports and bandwidth.
BEHIND: list[tuple[str, Json]] = [
    ("portmap", {"runtimeConfig": RUNTIME}),
    ("bandwidth", {"runtimeConfig": RUNTIME}),
    ("firewall", {}),
    ("tuning", {}),
]
CHAINS: dict[str, list[tuple[str, Json]]] = {
    "bridge": [("bridge", {"isGateway": True, "ipMasq": True, "ipam": IPAM}), *BEHIND],
    "ptp": [("ptp", {"ipMasq": True, "ipam": IPAM}), *BEHIND],
    "podwire": [("podwire", OWN), *BEHIND[2:]],
    "podwire, routed": [("podwire", {**OWN, "mode": "routed"}), *BEHIND[2:]],
    "flannel": [("flannel", {"delegate": {"isDefaultGateway": True}}), *BEHIND],
}


class Chain:
    """A conflist that is called as libcni calls it; `result` is that of the last ADD."""

    def __init__(self, node: Node, plugins: list[tuple[str, Json]]) -> None:
        self.node, self.plugins = node, plugins
        self.result: Json = {}

    def add(self, pod: Attachment) -> list[str]:
        """Calls ADD of each plugin, and returns the addresses of the result."""
        self.result = {}
        for program, settings in self.plugins:
            config = self.config(settings)
            self.result = self.node.call("ADD", config, pod, program=program).succeeded().content
        return [str(ip["address"]).partition("/")[0] for ip in self.result["ips"]]

    def call(self, verb: str, pod: Attachment, **members: object) -> list[str]:
        """Calls a verb of each plugin, DEL backwards, and returns the messages of those that fail."""
        plugins = self.plugins[::-1] if verb == "DEL" else self.plugins
        answers = [
            self.node.call(verb, {**self.config(settings), **members}, pod, program=program)
            for program, settings in plugins
        ]
        return [answer.message for answer in answers if answer.message]

    def config(self, settings: Json) -> Json:
        previous = {"prevResult": self.result} if self.result else {}
        return {"cniVersion": "1.1.0", "name": "six", **settings, **previous}


@pytest.fixture
def external(machine: Machine) -> Pod:
    machine.run("sh", "-c", "mkdir -p /run/flannel && cat > /run/flannel/subnet.env", stdin=SUBNET_ENV)
    external = machine.outside()
    external.serve(81)
    return external


@pytest.mark.parametrize("plugins", CHAINS.values(), ids=CHAINS)
def test_a_pod_has_its_network_until_it_is_deleted(
    machine: Machine, node: Node, external: Pod, plugins: list[tuple[str, Json]]
) -> None:
    chain, pod = Chain(node, plugins), machine.pod("pod")
    chain.add(attachment(pod))  # what attachments share stays after a DEL
    assert chain.call("DEL", attachment(pod)) == []
    before = whole(machine)

    [address] = chain.add(attachment(pod))
    assert ":" in address
    pod.serve(80)
    assert pod.ask(EXTERNAL, 81) == NODE  # masqueraded
    assert external.ask(NODE, 8080) == EXTERNAL  # the host port
    assert machine.ask(address, 80)
    assert chain.call("CHECK", attachment(pod)) == []
    assert chain.call("STATUS", attachment(pod)) == []
    assert chain.call("DEL", attachment(pod)) == []
    assert until(lambda: difference(before, whole(machine)) == [], "everything is as before")


@pytest.mark.parametrize("plugins", CHAINS.values(), ids=CHAINS)
def test_a_collection_releases_what_a_pod_had(
    machine: Machine, node: Node, external: Pod, plugins: list[tuple[str, Json]]
) -> None:
    chain, pod = Chain(node, plugins), machine.pod("pod")
    [address] = chain.add(attachment(pod))
    pod.serve(80)
    assert external.ask(NODE, 8080) == EXTERNAL
    assert chain.call("GC", attachment(pod), **{"cni.dev/valid-attachments": []}) == []
    assert held_by(machine, "pod/eth0") == []
    with pytest.raises(MachineError):
        external.ask(NODE, 8080, seconds=0.3)
    assert chain.add(attachment(machine.pod("next"))) != [address]  # round robin, and the port is free
