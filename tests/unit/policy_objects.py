"""Builders of the API's objects for tests, from YAML as people write them."""

from __future__ import annotations

from typing import Any

import yaml

from cni.agent.policy.objects import (
    Namespace,
    NetworkPolicy,
    Pod,
    parse_namespace,
    parse_pod,
    parse_policy,
)


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
