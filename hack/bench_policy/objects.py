"""Objects of a large cluster, as the Kubernetes API writes them: namespaces, pods, NetworkPolicies, one node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

NODE = "bench"
SPACE = "space0"  # the namespace of the pods that are measured
CLIENT, SERVER = "10.1.1.2", "10.1.1.3"
ALLOWED_PORT, OTHER_PORT = 5000, 5001
PODS_A_NAMESPACE, APPS, NODES = 100, 500, 1000
TEST = {"part": "test"}  # labels of client and server
BORN = "2026-01-01T00:00:00Z"
PLURALS = {
    "namespaces": ("v1", "Namespace"),
    "nodes": ("v1", "Node"),
    "pods": ("v1", "Pod"),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy"),
}

Json = dict[str, Any]


class World(NamedTuple):
    """Numbers of a cluster's pods and policies, of which some select the two pods of this node."""

    pods: int
    policies: int
    selecting: int

    def objects(self) -> Iterator[tuple[str, Json]]:
        """Yields each object with the plural of its kind."""
        spaces = max(1, self.pods // PODS_A_NAMESPACE)
        yield "nodes", node()
        for number in range(spaces):
            labels = {"kubernetes.io/metadata.name": f"space{number}", "team": f"team{number % 20}"}
            yield "namespaces", {"metadata": {"name": f"space{number}", "labels": labels}}
        yield "pods", pod("client", SPACE, NODE, CLIENT, TEST)
        yield "pods", pod("server", SPACE, NODE, SERVER, TEST)
        for number in range(self.pods - 2):
            labels = {"app": f"app{number % APPS}", "pod-template-hash": f"{number % 700:x}", "tier": "any"}
            ip = f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            yield "pods", pod(f"pod{number}", f"space{number % spaces}", f"node{number % NODES}", ip, labels)
        for number in range(self.policies):
            yield "networkpolicies", self._policy(number, spaces)

    def _policy(self, number: int, spaces: int) -> Json:
        """Returns a policy; of those that select the pods of this node, the last one allows what they do."""
        if number >= self.selecting:
            subject, peer = ({"app": f"app{(number + step) % APPS}"} for step in (0, 1))
            return policy(f"policy{number}", f"space{number % spaces}", subject, peer)
        return policy(f"policy{number}", SPACE, TEST, TEST if number == self.selecting - 1 else {"app": f"app{number}"})


def node() -> Json:
    return {
        "metadata": {"name": NODE, "annotations": {}},
        "spec": {"podCIDR": "10.1.1.0/24", "podCIDRs": ["10.1.1.0/24"]},
        "status": {"conditions": [], "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
    }


def pod(name: str, namespace: str, on: str, ip: str, labels: dict[str, str]) -> Json:
    """Returns a pod of one container, 2.5 kB as most are; without an address it has not been attached yet."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{name}-set", "uid": name, "controller": True}
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"{namespace}-{name}",
        "labels": labels,
        "creationTimestamp": BORN,
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x" * 400},
        "ownerReferences": [owner],
    }
    return {"metadata": metadata, "spec": _pod_spec(on), "status": _pod_status(ip)}


def _pod_spec(on: str) -> Json:
    container = {
        "name": "main",
        "image": "registry.example/app:1.2.3",
        "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"NAME{number}", "value": "v" * 20} for number in range(8)],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "token", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io"}],
    }
    tolerations = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
        for key in ("not-ready", "unreachable")
    ]
    return {"nodeName": on, "serviceAccountName": "default", "containers": [container], "tolerations": tolerations}


def _pod_status(ip: str) -> Json:
    if not ip:
        return {"phase": "Pending"}
    container = {
        "name": "main",
        "ready": True,
        "restartCount": 0,
        "image": "registry.example/app:1.2.3",
        "imageID": "sha256:" + "0" * 64,
        "containerID": "containerd://" + "1" * 64,
        "state": {"running": {"startedAt": BORN}},
    }
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": BORN}
        for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "hostIP": "192.0.2.1",
        "startTime": BORN,
        "qosClass": "Burstable",
        "conditions": conditions,
        "containerStatuses": [container],
    }


def policy(name: str, namespace: str, subject: dict[str, str], peer: dict[str, str]) -> Json:
    """Returns a policy that allows pods with the peer's labels, in any namespace, the port, both ways."""
    peers = [{"namespaceSelector": {}, "podSelector": {"matchLabels": peer}}]
    ports = [{"protocol": "TCP", "port": ALLOWED_PORT}]
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "creationTimestamp": BORN},
        "spec": {
            "podSelector": {"matchLabels": subject},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"ports": ports, "from": peers}],
            "egress": [{"ports": ports, "to": peers}],
        },
    }


def with_kind(plural: str, item: Json) -> bytes:
    version, kind = PLURALS[plural]
    return json.dumps({"apiVersion": version, "kind": kind, **item}, separators=(",", ":")).encode()
