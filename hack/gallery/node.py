"""Two nodes for pictures: podwired on each, pods, and what breaks there. Names and addresses are the same each time."""

from __future__ import annotations

import hashlib
import json
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.machine import MachineError, until

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.machine import Machine, Pod

    Json = dict[str, Any]

BIN = "/opt/cni/bin"
HEALTH_PORT, PORT = 8081, 80
ON_SECOND = ("ip", "netns", "exec", "node2")
TERMINAL = {"TERM": "xterm-256color", "COLUMNS": "170", "LINES": "50", "NO_COLOR": ""}
CAPABILITIES = {"portMappings": True, "bandwidth": True}
NODES = [
    {"name": f"node{number}", "PublicIP": f"192.0.2.1{number}", "Subnet": f"10.244.{number}.0/24"} for number in (1, 2)
]
CLUSTER = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}, "nodes": NODES}
PREPARE = """
mkdir -p /etc/cni/net.d /run/node2
cat >/run/nodes.json
ip netns add node2
ip link add eth0 type veth peer name eth0 netns node2
ip address add 192.0.2.11/24 dev eth0
ip link set eth0 up
ip route add default via 192.0.2.1
ip -n node2 link set lo up
ip -n node2 address add 192.0.2.12/24 dev eth0
ip -n node2 link set eth0 up
ip -n node2 route add default via 192.0.2.1
"""
# Each pod with its ports and its limit.
PODS: dict[str, Json] = {
    "shop/web-0": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
    "shop/web-1": {},
    "shop/db-0": {"bandwidth": {"ingressRate": 100_000_000, "ingressBurst": 8_000_000}},
    "monitoring/prometheus-0": {"portMappings": [{"hostPort": 9090, "containerPort": 9090, "protocol": "tcp"}]},
}
# A pod without its default route, and the lease of a pod that was deleted without a DEL.
DAMAGE = r"""
ip -n web-0 route delete default
printf 'deleted\r\neth0' >/var/lib/cni/networks/pods/10.244.1.9
touch -d '1 hour ago' /var/lib/cni/networks/*/*
"""
SINCE = "touch -d '3 hours ago' /run/podwire/attachment-*"


def network(name: str, subnet: str, plugin: str = "podwire") -> Json:
    """Returns a network of pods."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    config = {"cniVersion": "1.1.0", "name": name, "type": plugin, "ipMasq": True, "ipam": ipam}
    return config if plugin == "ptp" else {**config, "isDefaultGateway": True}


class Node:
    """The first of two nodes, in a machine, with another one behind its uplink."""

    def __init__(self, machine: Machine, bundle: Path) -> None:
        self.machine, self._bundle = machine, bundle

    def prepare(self) -> None:
        """Starts both nodes with their pods. Raises MachineError unless a pod of one reaches a pod of the other."""
        machine, agent = self.machine, f"{self._bundle}/podwired"
        machine.run("sh", "-ec", PREPARE, stdin=json.dumps(CLUSTER))
        machine.run(f"{self._bundle}/podwire", "install", "--bin-dir", BIN)
        nodes = "--nodes-file=/run/nodes.json"
        health = ("--healthz-ip=127.0.0.1", f"--healthz-port={HEALTH_PORT}")
        machine.start(agent, nodes, "--node-name=node1", *health)
        files = ("--subnet-file=/run/node2/subnet.env", "--control-socket=/run/node2/socket")
        machine.start(*ON_SECOND, agent, nodes, "--node-name=node2", *files)
        pods = network("pods", "10.244.1.0/24")
        conflist = {"cniVersion": "1.1.0", "name": "pods", "plugins": [{**pods, "capabilities": CAPABILITIES}]}
        machine.run("sh", "-c", "cat >/etc/cni/net.d/10-pods.conflist", stdin=json.dumps(conflist))
        first = [self._attach(name, {**pods, "runtimeConfig": settings}) for name, settings in PODS.items()]
        self._attach("edge/gateway-0", network("edge", "10.99.0.0/24", "ptp"))
        far = self._attach("shop/cache-0", network("far", "10.244.2.0/24"), ON_SECOND)
        machine.run("sh", "-ec", SINCE)
        far.serve(PORT)
        address = far.addresses()[0].partition("/")[0]
        until(lambda: _reaches(first[0], address), "a pod reaches a pod of the other node")
        until(lambda: self.podwire("status").returncode == 0, "podwired is ready")

    def damage(self) -> None:
        """Takes a pod's route, leaves a lease of a pod that is gone, and asks for a host port that is in use."""
        self.machine.run("sh", "-ec", DAMAGE)
        taken = {**network("pods", "10.244.1.0/24"), "runtimeConfig": PODS["shop/web-0"]}
        with suppress(MachineError):
            self._attach("shop/web-2", taken)

    def podwire(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Types a command."""
        return self.machine.run(f"{self._bundle}/podwire", *arguments, check=False)

    def answer(self, arguments: list[str]) -> str:
        """Returns what a command prints."""
        return self.podwire(*arguments).stdout

    def at_terminal(self, *arguments: str) -> str:
        """Returns what a command writes to a terminal, with the line that was typed."""
        command = shlex.join([f"{self._bundle}/podwire", *arguments])
        shown = self.machine.run("script", "-qec", command, "/dev/null", env=TERMINAL, check=False).stdout
        return f"# podwire {shlex.join(arguments)}\n{shown}".replace("\r", "")

    def _attach(self, name: str, config: Json, place: tuple[str, ...] = ()) -> Pod:
        """Attaches a pod as a runtime does."""
        namespace, _, pod_name = name.partition("/")
        pod = self.machine.pod(pod_name)
        variables = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": hashlib.sha256(name.encode()).hexdigest(),
            "CNI_NETNS": pod.path,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={pod_name}",
            "CNI_PATH": BIN,
        }
        self.machine.run(*place, f"{BIN}/{config['type']}", env=variables, stdin=json.dumps(config))
        return pod


def _reaches(pod: Pod, address: str) -> bool:
    try:
        pod.ask(address, PORT)
    except MachineError:
        return False
    return True
