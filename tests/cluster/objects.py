"""The Kubernetes objects that the tests make."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.access import Cluster, Json

IMAGE = os.environ.get("PODWIRE_TEST_IMAGE", "registry.k8s.io/e2e-test-images/agnhost:2.63.0")
TCP, UDP = 8080, 8081  # where a pod serves
HOST_TCP, HOST_UDP = 18080, 18081  # where one does that has the node's network
EVERYWHERE = [{"operator": "Exists"}]


def pod(
    name: str,
    node: str,
    command: Sequence[str] = (),
    *,
    annotations: dict[str, str] | None = None,
    ports: Sequence[Json] = (),
    probes: Json | None = None,
    on_host: bool = False,
) -> Json:
    """A pod on this node; without a command it serves, and is ready when it does."""
    tcp, udp = (HOST_TCP, HOST_UDP) if on_host else (TCP, UDP)
    serving = ["/agnhost", "netexec", f"--http-port={tcp}", f"--udp-port={udp}"]
    ready = {"readinessProbe": {"httpGet": {"path": "/healthz", "port": tcp}, "periodSeconds": 1, "timeoutSeconds": 5}}
    probed = probes if probes is not None else {} if command else ready
    container = {
        "name": "agnhost",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command) or serving,
        "ports": list(ports),
        **probed,
    }
    spec: dict[str, Any] = {
        "nodeName": node,
        "hostNetwork": on_host,
        "tolerations": EVERYWHERE,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [container],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": annotations or {}},
        "spec": spec,
    }


def service(name: str, selector: dict[str, str], **spec: Any) -> Json:
    """Ports 80 of TCP and UDP, of all pods with the labels."""
    ports = [
        {"name": "tcp", "protocol": "TCP", "port": 80, "targetPort": TCP},
        {"name": "udp", "protocol": "UDP", "port": 80, "targetPort": UDP},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports, **spec},
    }


def namespace(name: str) -> Json:
    """One whose pods may have the node's network."""
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def limits(bits: str) -> dict[str, str]:
    """Annotations of a pod that may receive and send so many bits a second."""
    return {f"kubernetes.io/{direction}-bandwidth": bits for direction in ("ingress", "egress")}


def text(*objects: Json) -> str:
    """Returns the objects as kubectl reads them."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def cluster_ip(cluster: Cluster, name: str) -> str:
    address: str = cluster.get("service", "-n", cluster.namespace, name)["spec"]["clusterIP"]
    return address


def node_port(cluster: Cluster, name: str, protocol: str = "tcp") -> int:
    ports = cluster.get("service", "-n", cluster.namespace, name)["spec"]["ports"]
    return next(int(port["nodePort"]) for port in ports if port["name"] == protocol)
