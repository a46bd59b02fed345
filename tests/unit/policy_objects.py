"""Builders of the API's objects for tests, from YAML as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from cni.agent.policy.clusterpolicy import ClusterPolicy, parse_cluster_policy
from cni.agent.policy.evaluator import allowed
from cni.agent.policy.nodes import Node, parse_node
from cni.agent.policy.objects import (
    Namespace,
    NetworkPolicy,
    Pod,
    parse_namespace,
    parse_pod,
    parse_policy,
)
from cni.protocol.address import IP, parse_ip

if TYPE_CHECKING:
    from cni.agent.policy.evaluator import Verdict
    from cni.agent.policy.jsonobject import Labels
    from cni.agent.policy.objects import PodPeer
    from cni.protocol.jsontext import JsonValue

NODES: dict[str, tuple[str, ...]] = {
    "n1": ("192.0.2.1", "10.1.1.1", "2001:db8::1"),
    "n2": ("192.0.2.2", "10.1.2.1", "2001:db8::2"),
}
PACKED = {node: {parse_ip(text).packed for text in texts} for node, texts in NODES.items()}


def namespace_of(name: str, **labels: str) -> Namespace:
    return parse_namespace({"metadata": {"name": name, "labels": dict(labels)}})


def pod_of(title: str, *addresses: str, node: str = "n1", **more: Any) -> Pod:
    """Returns the pod NAMESPACE/NAME; `labels`, `phase`, `host` and `ports` (name to number or PROTOCOL/number)."""
    namespace, name = title.split("/")
    ports = [
        {"name": key, "protocol": protocol or "TCP", "containerPort": int(number)}
        for key, port in more.get("ports", {}).items()
        for protocol, _, number in [str(port).rpartition("/")]
    ]
    value: dict[str, Any] = {
        "metadata": {"namespace": namespace, "name": name, "labels": more.get("labels", {"app": name})},
        "spec": {"nodeName": node, "hostNetwork": more.get("host", False), "containers": [{"ports": ports}]},
        "status": {"phase": more.get("phase", "Running"), "podIPs": [{"ip": address} for address in addresses]},
    }
    return parse_pod(value)


def policy_of(title: str, spec: str) -> NetworkPolicy:
    """Returns the policy NAMESPACE/NAME with a spec in YAML."""
    namespace, name = title.split("/")
    return parse_policy({"metadata": {"namespace": namespace, "name": name}, "spec": yaml.safe_load(spec)})


def cluster_policy_of(name: str, spec: str) -> ClusterPolicy:
    """Returns the ClusterNetworkPolicy with a spec in YAML; by default of the tier Admin, about all pods."""
    default = {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}}
    return parse_cluster_policy({"metadata": {"name": name}, "spec": default | yaml.safe_load(spec)})


def node_of(name: str, *addresses: str, **labels: str) -> Node:
    listed: list[JsonValue] = [{"type": "InternalIP", "address": address} for address in (*addresses, name)]
    return parse_node({"metadata": {"name": name, "labels": dict(labels)}, "status": {"addresses": listed}})


class Objects:
    """A state of the evaluator that looks at everything each time, with claims of addresses in the order of events."""

    def __init__(self) -> None:
        self.opens_node = False
        self.namespaces: dict[str, Namespace] = {}
        self.pods: dict[str, Pod] = {}
        self.policies: dict[str, NetworkPolicy | ClusterPolicy] = {}
        self.nodes: dict[str, Node] = {}
        self._claims: list[tuple[bytes, str]] = []

    def put_pod(self, pod: Pod) -> None:
        title = f"{pod.namespace}/{pod.name}"
        self.remove_pod(title, but=pod.addresses if pod.is_subject else ())
        if pod.is_subject:
            self.pods[title] = pod
            self._claims += [(address, title) for address in pod.addresses if (address, title) not in self._claims]

    def remove_pod(self, title: str, but: tuple[bytes, ...] = ()) -> None:
        self.pods.pop(title, None)
        self._claims = [claim for claim in self._claims if claim[1] != title or claim[0] in but]

    def pod_at(self, address: bytes) -> Pod | None:
        return next((self.pods[title] for claimed, title in reversed(self._claims) if claimed == address), None)

    def namespace_labels(self, name: str) -> Labels | None:
        return self.namespaces[name].labels if name in self.namespaces else None

    def policies_in(self, namespace: str) -> list[NetworkPolicy]:
        return [
            policy
            for policy in self.policies.values()
            if isinstance(policy, NetworkPolicy) and policy.namespace == namespace
        ]

    def cluster_policies(self) -> list[ClusterPolicy]:
        return [policy for policy in self.policies.values() if isinstance(policy, ClusterPolicy)]

    def nodes_at(self, address: bytes) -> list[Labels]:
        return [node.labels for node in self.nodes.values() if address in node.addresses]

    def is_node_of(self, pod: Pod, address: bytes) -> bool:
        return address in PACKED.get(pod.node, ())

    def is_open_node(self, pod: Pod, address: bytes) -> bool:
        return self.opens_node and self.is_node_of(pod, address)

    def selects(self, peer: PodPeer, pod: Pod) -> bool:
        if not peer.pods.matches(dict(pod.labels)):
            return False
        if isinstance(peer.namespaces, str):
            return peer.namespaces == pod.namespace
        labels = self.namespace_labels(pod.namespace)
        return labels is not None and peer.namespaces.matches(dict(labels))


class Cluster(Objects):
    """Objects that are asked by names. Namespaces of pods that are not given are there without labels."""

    def __init__(self, *objects: Namespace | Pod | NetworkPolicy | ClusterPolicy | Node) -> None:
        super().__init__()
        self.given = [pod for pod in objects if isinstance(pod, Pod)]
        self.namespaces = {namespace.name: namespace for namespace in objects if isinstance(namespace, Namespace)}
        self.policies = {
            policy.title: policy for policy in objects if isinstance(policy, NetworkPolicy | ClusterPolicy)
        }
        self.nodes = {node.name: node for node in objects if isinstance(node, Node)}
        for pod in self.given:
            self.namespaces.setdefault(pod.namespace, namespace_of(pod.namespace))
            self.put_pod(pod)

    def address_of(self, end: str, family: int) -> IP:
        """Returns an address as it is, or that of the pod NAMESPACE/NAME."""
        if "/" not in end:
            return parse_ip(end)
        pod = next(pod for pod in self.given if f"{pod.namespace}/{pod.name}" == end)
        return next(ip for ip in map(IP.from_packed, pod.addresses) if ip.family == family)

    def verdict(self, source: str, destination: str, to: str = "TCP/80", family: int = 4) -> Verdict:
        protocol, _, port = to.partition("/")
        ends = self.address_of(source, family), self.address_of(destination, family)
        return allowed(self, *ends, protocol, int(port or 0))

    def allows(self, source: str, destination: str, to: str = "TCP/80", family: int = 4) -> bool:
        return self.verdict(source, destination, to, family).allowed
