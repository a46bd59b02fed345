"""Builders of the API's objects for tests, from YAML as people write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from cni.agent.policy.evaluator import allowed
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

NODES = {"n1": ("192.0.2.1", "10.1.1.1", "2001:db8::1"), "n2": ("192.0.2.2", "10.1.2.1", "2001:db8::2")}


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


class Cluster:
    """A state of plain lists for the evaluator; `nodes`: addresses by the node's name."""

    def __init__(
        self, *objects: Namespace | Pod | NetworkPolicy, nodes: dict[str, tuple[str, ...]] | None = None
    ) -> None:
        self.namespaces = {one.name: one for one in objects if isinstance(one, Namespace)}
        self.pods = [one for one in objects if isinstance(one, Pod)]
        self.policies = [one for one in objects if isinstance(one, NetworkPolicy)]
        self.nodes = nodes or NODES
        for pod in self.pods:
            self.namespaces.setdefault(pod.namespace, namespace_of(pod.namespace))

    def pod_at(self, address: bytes) -> Pod | None:
        holders = [pod for pod in self.pods if pod.is_subject and address in pod.addresses]
        return holders[-1] if holders else None

    def namespace_labels(self, name: str) -> Labels | None:
        return self.namespaces[name].labels if name in self.namespaces else None

    def policies_in(self, namespace: str) -> list[NetworkPolicy]:
        return [one for one in self.policies if one.namespace == namespace]

    def is_node_of(self, pod: Pod, address: bytes) -> bool:
        return address in [parse_ip(text).packed for text in self.nodes.get(pod.node, ())]

    def address_of(self, end: str, family: int = 4) -> IP:
        """Returns an address as it is, or that of the pod NAMESPACE/NAME."""
        if "/" not in end:
            return parse_ip(end)
        pod = next(pod for pod in self.pods if f"{pod.namespace}/{pod.name}" == end)
        return next(ip for ip in map(IP.from_packed, pod.addresses) if ip.family == family)

    def verdict(self, source: str, destination: str, to: str = "TCP/80", family: int = 4) -> Verdict:
        protocol, _, port = to.partition("/")
        ends = self.address_of(source, family), self.address_of(destination, family)
        return allowed(self, *ends, protocol, int(port or 0))

    def allows(self, source: str, destination: str, to: str = "TCP/80", family: int = 4) -> bool:
        return self.verdict(source, destination, to, family).allowed
