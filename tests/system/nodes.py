"""Nodes of a cluster on one wire: each a machine in the machine, with an agent and pods of its own.

The machine is the world outside: its bridge is the wire, and etcd listens there.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.machine import SECONDS, Machine, MachineError, Pod, until
from tests.namespaces import furnish
from tests.system.plugins import Attachment, call
from tests.system.programs import Etcd, Program

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.system.plugins import Json

WIRE = {4: "192.168.100.1", 6: "fd00:100::1"}  # the world outside, and the nodes' way to it
NETWORK = {4: "10.244.0.0/16", 6: "fd00:244::/56"}
SUBNET_ENV = "/run/flannel/subnet.env"
HEALTH_PORT = 8081
POD_PORT = 8000  # where pods listen, and the world outside
MASQUERADE = "--ip-masq"

# As that of tests.machine. Two numbers are told, the first process's outside of all machines and in the cluster's.
_INIT = """
read -r outside rest < "/proc/self/fd/$1/self/stat"
read -r number rest < /proc/self/stat
echo "$outside $number"
exec cat
"""

_REPORT = """
ip -d link; ip address; ip route; ip -6 route; ip neighbour; bridge fdb; nft list ruleset; cat /run/flannel/subnet.env
"""


class Guest(NamedTuple):
    """A pod on a node; `addresses` by family."""

    pod: Pod
    addresses: dict[int, str]

    def reaches(self, other: Guest) -> bool:
        """True if TCP connections in each family that the guest has arrive, with its own address as source."""
        return all(self.source_at(other.addresses[family]) == own for family, own in self.addresses.items())

    def source_at(self, host: str, seconds: float = 5.0) -> str:
        """Returns the address that a server sees, nothing when it is out of reach."""
        try:
            return self.pod.ask(host, POD_PORT, seconds=seconds)
        except MachineError:
            return ""


class Node(Machine):
    """A host on the wire. What lies below /run, /var/lib and /etc/cni is its own."""

    def __init__(self, cluster: Cluster, name: str, number: int) -> None:
        super().__init__(user_namespace=cluster.machine.user_namespace)
        self.cluster = cluster
        self.name = name
        self.number = number
        self.mac = f"02:00:c0:a8:64:{number:02x}"
        self.agent: Program | None = None
        self.guests: list[Guest] = []

    @property
    def inside(self) -> int:
        """The first process's number in the cluster's machine."""
        return self._inside

    @property
    def guest(self) -> Guest:
        """The first pod."""
        return self.guests[0]

    def __enter__(self) -> Self:
        # A folder /proc of outside, to read what the first process is called there.
        outside = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        enter = ["unshare", "--net", "--mount", "--pid", "--fork", "sh", "-c", _INIT, "sh", str(outside)]
        init = self._end.enter_context(
            subprocess.Popen(
                self.cluster.machine.command(*enter),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[outside],
            )
        )
        os.close(outside)
        assert init.stdin
        assert init.stdout
        line = init.stdout.readline()
        try:
            self._number, self._inside = map(int, line.split())
        except ValueError:
            raise MachineError(line + init.stdout.read()) from None
        self._input = init.stdin
        self.call(furnish, (), ("/var/lib", "/etc/cni"))
        return self

    def address(self, family: int = 4) -> str:
        return WIRE[family] + str(self.number)

    def plug(self, mtu: int = 1500) -> None:
        """Joins the wire as eth0; the MAC address is the same each time, as a machine's is."""
        port = f"port-{self.name}"
        self.cluster.machine.run(
            *f"ip link add {port} mtu {mtu} master wire type veth peer name eth0".split(),
            *f"mtu {mtu} address {self.mac} netns {self._inside}".split(),
        )
        self.cluster.machine.run("ip", "link", "set", port, "up")
        self.run("ip", "link", "set", "eth0", "up")
        self.address_wire()

    def unplug(self) -> None:
        self.run("ip", "link", "del", "eth0")

    def address_wire(self) -> None:
        """Gives eth0 its addresses and the ways that lead out, of which some may be there."""
        commands = "".join(
            f"ip -{family} address replace {self.address(family)}/{length} dev eth0 {flag}\n"
            f"ip -{family} route replace default via {WIRE[family]}\n"
            for family, length, flag in ((4, 24, ""), (6, 64, "nodad"))
        )
        self.run("sh", "-ec", commands)

    def start_agent(self, program: Path, *flags: str, ready: bool = True) -> Program:
        """Starts flanneld, or what stands in for it."""
        where = [f"--etcd-endpoints={self.cluster.etcd.endpoint}", "--iface=eth0"]
        health = ["--healthz-ip=127.0.0.1", f"--healthz-port={HEALTH_PORT}"]
        self.agent = Program(self, "agent", str(program), *where, *health, *flags)
        if ready:
            self.until(lambda: self.probe("readyz")[0] == http.client.OK, f"the agent of {self.name} is ready")
        return self.agent

    def probe(self, path: str) -> tuple[int, str]:
        """Returns status and text of the agent's answer, 0 where there is none."""
        return self.call(_get, path)

    def subnet_env(self) -> str:
        return self.run("cat", SUBNET_ENV, check=False).stdout

    def subnet(self) -> str:
        """Returns the node's IPv4 subnet, as routes name it."""
        line = next(line for line in self.subnet_env().splitlines() if line.startswith("FLANNEL_SUBNET="))
        address, _, length = line.partition("=")[2].partition("/")
        return f"{address.rpartition('.')[0]}.0/{length}"

    def lease(self) -> tuple[str, str]:
        """Returns key and value of the node's lease."""
        leases = [(key, value) for key, value in self.cluster.etcd.leases().items() if self._is_mine(value)]
        assert len(leases) == 1, leases
        return leases[0]

    def _is_mine(self, value: str) -> bool:
        try:
            lease = json.loads(value)
        except ValueError:
            return False
        return isinstance(lease, dict) and lease.get("PublicIP") == self.address()

    def attach(self, name: str = "pod", delegate: Json | None = None) -> Guest:
        """Adds a pod as kube-flannel's network does; it listens on POD_PORT."""
        pod = self.pod(name)
        settings = {"hairpinMode": True, "isDefaultGateway": True, **(delegate or {})}
        config = {"cniVersion": "1.0.0", "name": "cbr0", "type": "flannel", "delegate": settings}
        attachment = Attachment(f"{name}-of-{self.name}", pod.path)
        answer = call(self, self.cluster.plugins / "flannel", "ADD", config, attachment)
        addresses = [ip["address"].partition("/")[0] for ip in answer["ips"]]
        pod.serve(POD_PORT)
        guest = Guest(pod, {6 if ":" in address else 4: address for address in addresses})
        self.guests.append(guest)
        return guest

    def stop_agent(self, signal: str = "TERM") -> int:
        """Returns the exit code, or the signal's number below 0."""
        assert self.agent
        return self.agent.end(signal)

    def until(self, condition: Callable[[], object], goal: str, seconds: float = SECONDS) -> None:
        """Waits for what the agents bring about; an AssertionError shows what they said, and how the nodes are."""
        self.cluster.until(condition, goal, seconds)


class Cluster:
    """The wire, etcd, and the nodes that are added."""

    def __init__(self, machine: Machine, plugins: Path) -> None:
        self.machine = machine
        self.plugins = plugins
        self.etcd = Etcd(machine, WIRE[4])
        self.nodes: dict[str, Node] = {}
        self._end = ExitStack()

    def __enter__(self) -> Self:
        # Without an address of its own a bridge takes one of its ports', another each time that one joins.
        setup = "ip link add wire address 02:00:c0:a8:64:ff type bridge\nip link set wire up\n"
        setup += f"ip address add {WIRE[4]}/24 dev wire\nip address add {WIRE[6]}/64 dev wire nodad\n"
        self.machine.run("sh", "-ec", setup)
        self.etcd.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def configure(self, backend: Json | None = None, families: tuple[int, ...] = (4,), **others: object) -> None:
        """Writes the network's configuration. flanneld needs `EnableNFTables` where no bridge filters packets.

        Nodes take IPv4 subnets from 10.244.1.0 to 10.244.63.0; those behind are a test's to give away.
        """
        ipv4 = {"Network": NETWORK[4], "SubnetMax": "10.244.63.0"} if 4 in families else {"EnableIPv4": False}
        ipv6 = {"EnableIPv6": True, "IPv6Network": NETWORK[6]} if 6 in families else {}
        backend = backend or {"Type": "vxlan"}
        space = {**ipv4, **ipv6}
        self.etcd.put("config", {**space, "EnableNFTables": True, "Backend": backend, **others})

    def add(self, *names: str) -> list[Node]:
        """Adds nodes that are on the wire and have nothing else yet."""
        added = []
        for name in names:
            node = self._end.enter_context(Node(self, name, len(self.nodes)))
            node.plug()
            self.nodes[name] = node
            added.append(node)
        return added

    def populate(self, agents: Mapping[str, Path], *flags: str) -> list[Node]:
        """Adds nodes with these agents, by the nodes' names, and a pod on each; all of them reach all others."""
        nodes = self.add(*agents)
        for node in nodes:
            node.start_agent(agents[node.name], *(flags or (MASQUERADE,)))
            node.attach()
        self.machine.serve(POD_PORT)
        self.until(self.is_whole, "all pods reach each other")
        return nodes

    def is_whole(self) -> bool:
        """Every first pod reaches all others, seen under its own address."""
        guests = [node.guest for node in self.nodes.values()]
        return all(guest.reaches(other) for guest in guests for other in guests if guest is not other)

    def until(self, condition: Callable[[], object], goal: str, seconds: float = SECONDS) -> None:
        """Waits as Node.until does."""
        try:
            until(condition, goal, seconds)
        except MachineError as error:
            raise AssertionError(f"{error}\n{self.report()}") from error

    def report(self) -> str:
        """Returns all that may tell why the nodes are not as they should be."""
        lines = []
        for name, node in self.nodes.items():
            log = node.agent.log if node.agent else "no agent\n"
            lines.append(f"---- {name}: agent\n{log}---- {name}: state\n")
            lines.append(node.run("sh", "-c", _REPORT, check=False).stdout)
        return "".join(lines)


def _get(path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", HEALTH_PORT, timeout=30)
    try:
        connection.request("GET", f"/{path}")
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
