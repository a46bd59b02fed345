"""A real cluster as the tests reach it: kubectl, and where the environment says how, its nodes and the world outside.

KUBECONFIG              the cluster; its network has to be podwire's. Pods are started there, and nodes stopped
PODWIRE_KUBECTL         what runs kubectl, where that is not simply `kubectl`
PODWIRE_NODE_COMMAND    needed, too: what runs a program on a node as root, with {node}: `docker exec {node}` for kind
PODWIRE_NODE_PLUG       what pulls a node's plug and starts it again, with {action}, which is stop or start, and {node}
PODWIRE_OUTSIDE_COMMAND what runs a program on a machine that is no node, but reaches the nodes; it has ip and python3
PODWIRE_TEST_IMAGE      agnhost, which the nodes have or can pull
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tests.cluster.objects import text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
Json = dict[str, Any]

MANAGED = "flannel.alpha.coreos.com/kube-subnet-manager"
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
DEADLINE = 300.0  # seconds; what is waited for is there long before, but on a busy machine


class ClusterError(Exception):
    """A command failed, or what was waited for did not come."""


class Node(NamedTuple):
    """As Kubernetes has it at the moment: one that registers again may get another range."""

    name: str
    address: str
    cidr: str
    annotations: dict[str, str]
    conditions: dict[str, Json]

    @property
    def is_ready(self) -> bool:
        return self.conditions.get("Ready", {}).get("status") == "True"


class Cluster:
    """Kubernetes, with a namespace of the tests' own."""

    def __init__(self, namespace: str) -> None:
        env = os.environ.get
        self.namespace = namespace
        self._kubectl = shlex.split(env("PODWIRE_KUBECTL", "kubectl"))
        self.node_command, self.plug_command = env("PODWIRE_NODE_COMMAND", ""), env("PODWIRE_NODE_PLUG", "")
        self.outside_command = shlex.split(env("PODWIRE_OUTSIDE_COMMAND", ""))

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        return finished([*self._kubectl, *arguments], stdin)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*self._kubectl, *arguments], stdout=subprocess.PIPE, text=True)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", "-o", "json", *arguments))

    def items(self, kind: str) -> list[Json]:
        """Returns all objects of this kind in the tests' namespace."""
        items: list[Json] = self.get(kind, "-n", self.namespace)["items"]
        return items

    def apply(self, *objects: Json) -> None:
        self.kubectl("apply", "-n", self.namespace, "-f", "-", stdin=text(*objects))

    def delete(self, kind: str, *names: str, grace: int = 1) -> None:
        """Waits until they are gone."""
        wait = ["--wait=true", f"--timeout={DEADLINE:.0f}s", "--ignore-not-found"]
        self.kubectl("delete", kind, "-n", self.namespace, *wait, f"--grace-period={grace}", *names)

    def nodes(self) -> list[Node]:
        """Returns all, those of the control plane first."""
        nodes = sorted(self.get("nodes")["items"], key=lambda node: CONTROL_PLANE not in node["metadata"]["labels"])
        return [_node(node) for node in nodes]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes() if node.name == name)

    def on(self, node: str, *command: str) -> str:
        """Runs a program on a node."""
        return finished([word.format(node=node) for word in shlex.split(self.node_command)] + list(command))

    def shell(self, node: str, script: str) -> str:
        return self.on(node, "sh", "-c", script)

    def pull_plug(self, node: str, action: str) -> None:
        finished([word.format(node=node, action=action) for word in shlex.split(self.plug_command)])

    def addresses_of_pods(self, node: str) -> set[str]:
        """Returns the addresses of all pods of the node that have a network of their own."""
        pods = self.get("pods", "-A", f"--field-selector=spec.nodeName={node}")["items"]
        living = [pod for pod in pods if pod["status"]["phase"] not in ("Succeeded", "Failed")]
        own = [pod for pod in living if not pod["spec"].get("hostNetwork")]
        return {each["ip"] for pod in own for each in pod["status"].get("podIPs", ())}


class Pod(NamedTuple):
    """A pod of the tests' namespace: agnhost, which serves at two ports whom it sees ask."""

    cluster: Cluster
    name: str
    port: int = 8080

    def run(self, *command: str) -> str:
        return self.cluster.kubectl("exec", "-n", self.cluster.namespace, self.name, "--", *command)

    def shell(self, script: str) -> str:
        return self.run("sh", "-c", script)

    def start(self, script: str) -> subprocess.Popen[str]:
        """Starts a script whose output is read later."""
        return self.cluster.start("exec", "-n", self.cluster.namespace, self.name, "--", "sh", "-c", script)

    @property
    def now(self) -> Json:
        pod: Json = self.cluster.get("pod", "-n", self.cluster.namespace, self.name)
        return pod

    @property
    def address(self) -> str:
        address: str = self.now["status"]["podIP"]
        return address

    def ask(self, host: str, port: int, question: str = "clientip") -> str:
        """Asks another one by TCP. Raises ClusterError where no answer comes."""
        return self.run("curl", "-sSf", "--max-time", "10", f"http://{host}:{port}/{question}")

    def seen_at(self, host: str, port: int = 8080) -> str:
        """Returns the address that the server sees, as soon as it answers."""
        answer = until(lambda: self.ask(host, port), f"{self.name} is answered from {host}:{port}")
        return answer.strip().rpartition(":")[0]

    def answered_from(self, host: str, port: int) -> str:
        """Returns the name of the pod that answers, as soon as one does."""
        goal = f"{self.name} is answered from {host}:{port}"
        return until(lambda: self.ask(host, port, "hostname"), goal).strip()

    def seen_by_udp_at(self, host: str, port: int) -> str:
        return self.told_by(f"echo clientip | nc -u -w 2 {host} {port}").rpartition(":")[0]

    def told_by(self, script: str) -> str:
        """Returns what the script prints, as soon as it prints anything."""
        return until(lambda: self.shell(script), f"{self.name}: {script}").strip()


def finished(command: Sequence[str], stdin: str = "") -> str:
    """Returns what it printed. Raises ClusterError where it fails."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=2 * DEADLINE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(str(error)) from error
    if done.returncode:
        raise ClusterError(f"{shlex.join(command)[:500]}: exit {done.returncode}: {done.stderr.strip()[-1500:]}")
    return done.stdout


def until(ask: Callable[[], T], goal: str, seconds: float = DEADLINE) -> T:
    """Asks until the answer is true, and returns it; a command that fails is not true yet."""
    end, seen = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        try:
            if answer := ask():
                return answer
            seen = repr(answer)
        except ClusterError as error:
            seen = str(error)
        time.sleep(0.5)
    raise ClusterError(f"waited in vain until {goal}; last seen: {seen}")


def is_ready(pod: Json) -> bool:
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions", ())
    )


def _node(node: Json) -> Node:
    addresses = {each["type"]: each["address"] for each in reversed(node["status"]["addresses"])}
    conditions = {each["type"]: each for each in node["status"]["conditions"]}
    annotations = node["metadata"].get("annotations", {})
    return Node(
        node["metadata"]["name"], addresses["InternalIP"], node["spec"].get("podCIDR", ""), annotations, conditions
    )
