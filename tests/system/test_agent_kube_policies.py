"""The Kubernetes store of policies at a real API server: what it watches, what the server forgets, and who may what."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from cni.agent.policy.clusterpolicy import ClusterPolicy
from cni.agent.policy.events import CLUSTER_POLICIES, KINDS, LOCAL_PODS, NAMESPACES, NODES, POLICIES, REMOTE_PODS
from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod
from cni.agent.stores.kube.client import Api
from cni.agent.stores.kube.config import access_of
from cni.agent.stores.kube.options import KubeOptions
from cni.agent.stores.policy import kube
from cni.agent.stores.policy.kube import KubePolicyStore
from tests.machine import until
from tests.recorder import PolicyRecorder
from tests.system.kube_server import ADMIN, PREFIX, RBAC, READER, Server, kubeconfig
from tests.system.kube_store import Endpoint, against_kubernetes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.kube_server import Json

pytest_plugins = ("tests.system.kube_machine",)
pytestmark = pytest.mark.xdist_group("kubernetes")

BLUE = "/api/v1/namespaces/blue"
NETWORKING = "/apis/networking.k8s.io/v1"
MERGE = "application/merge-patch+json"
GROUP = "policy.networking.k8s.io"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
ANYTHING: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
DEFINITION: Json = {
    "metadata": {
        "name": f"clusternetworkpolicies.{GROUP}",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api"},
    },
    "spec": {
        "group": GROUP,
        "scope": "Cluster",
        "names": {"kind": "ClusterNetworkPolicy", "plural": "clusternetworkpolicies"},
        "versions": [{"name": "v1alpha2", "served": True, "storage": True, "schema": {"openAPIV3Schema": ANYTHING}}],
    },
}


class Cluster:
    """The objects of the namespace `blue`, in which there is nothing at first."""

    def __init__(self, server: Server) -> None:
        self.server = server
        if server.status("GET", BLUE) == 404:
            server.call("POST", "/api/v1/namespaces", {"metadata": {"name": "blue"}})
        server.call("PATCH", BLUE, {"metadata": {"labels": {"team": None}}}, MERGE)
        server.call("DELETE", f"{NETWORKING}/namespaces/blue/networkpolicies")
        for item in server.call("GET", f"{BLUE}/pods")["items"]:
            self.delete_pod(item["metadata"]["name"])

    def put_pod(self, name: str, ip: str, node: str = "one", **labels: str) -> None:
        spec = {
            "nodeName": node,
            "containers": [{"name": "it", "image": "it", "ports": [{"containerPort": 80, "name": "http"}]}],
        }
        self.server.call("POST", f"{BLUE}/pods", {"metadata": {"name": name, "labels": labels}, "spec": spec})
        self.set_status(name, phase="Running", podIP=ip, podIPs=[{"ip": ip}])

    def set_status(self, name: str, **status: Any) -> None:
        self.server.call("PATCH", f"{BLUE}/pods/{name}/status", {"status": status}, MERGE)

    def delete_pod(self, name: str) -> None:
        self.server.call("DELETE", f"{BLUE}/pods/{name}", {"gracePeriodSeconds": 0})

    def put_policy(self, name: str, **spec: Any) -> None:
        path = f"{NETWORKING}/namespaces/blue/networkpolicies"
        self.server.call("POST", path, {"metadata": {"name": name}, "spec": {"podSelector": {}, **spec}})

    def delete_policy(self, name: str) -> None:
        self.server.call("DELETE", f"{NETWORKING}/namespaces/blue/networkpolicies/{name}")

    def label(self, **labels: str) -> None:
        self.server.call("PATCH", BLUE, {"metadata": {"labels": labels}}, MERGE)


def options_of(config: str = "") -> KubeOptions:
    """Returns the options of a store that runs on the node `one`."""
    return KubeOptions("one", ("", ""), "", config or kubeconfig(ADMIN), "", PREFIX, "", set_network_condition=False)


@contextmanager
def following(config: str = "") -> Iterator[PolicyRecorder]:
    store = KubePolicyStore(options_of(config))
    recorder = PolicyRecorder(store)
    store.start(recorder.record)
    try:
        yield recorder
    finally:
        store.close()


def addresses(recorder: PolicyRecorder, kind: str, name: str) -> tuple[bytes, ...]:
    pod = recorder.objects[kind].get(("blue", name))
    return pod.addresses if isinstance(pod, Pod) else ()


@against_kubernetes
def test_objects_come_change_and_go(server: Server) -> None:
    cluster = Cluster(server)
    cluster.put_pod("web", "10.244.1.2", app="web")
    with following() as recorder:
        recorder.wait(LOCAL_PODS, "blue/web")
        until(lambda: recorder.listed == {NAMESPACES, POLICIES, CLUSTER_POLICIES, LOCAL_PODS}, "all are listed")
        blue = Namespace("blue", (("kubernetes.io/metadata.name", "blue"),))
        assert recorder.objects[NAMESPACES]["", "blue"] == blue
        cluster.label(team="a")
        until(lambda: recorder.objects[NAMESPACES]["", "blue"] != blue, "the label is known")
        cluster.put_policy("deny", ingress=[{"ports": [{"port": 80}]}])
        recorder.wait(POLICIES, "blue/deny")
        deny = recorder.objects[POLICIES]["blue", "deny"]
        assert isinstance(deny, NetworkPolicy)
        assert deny.ingress is not None
        assert deny.ingress[0].ports[0].protocol == "TCP"
        assert (deny.egress, deny.error) == (None, "")
        cluster.delete_policy("deny")
        recorder.wait(POLICIES)
        cluster.put_pod("next", "10.244.1.3")
        until(lambda: addresses(recorder, LOCAL_PODS, "next"), "its address is known")
        cluster.delete_pod("web")
        recorder.wait(LOCAL_PODS, "blue/next")
        assert recorder.errors == []


@against_kubernetes
def test_of_namespaces_the_server_sends_the_metadata_alone(server: Server) -> None:
    cluster = Cluster(server)
    api = Api(partial(access_of, options_of()))
    items: list[Json] = []
    revision = api.list(kube.NAMESPACE_METADATA, items.append)
    cluster.label(team="a")
    stream = api.watch(kube.NAMESPACE_METADATA, revision, 60)
    _, changed = next(iter(stream))
    stream.close()
    assert changed["metadata"]["labels"]["team"] == "a"
    assert {"metadata", "kind", "apiVersion"} >= {key for item in (*items, changed) for key in item}


@against_kubernetes
def test_pods_of_other_nodes_are_known_while_they_are_wanted_and_run(server: Server) -> None:
    cluster = Cluster(server)
    cluster.put_pod("web", "10.244.1.2")
    cluster.put_pod("db", "10.244.2.2", "two")
    cluster.put_pod("unbound", "10.244.9.9", "")
    with mock.patch.object(kube, "PODS", kube.PODS._replace(page=1)), following() as recorder:
        recorder.wait(LOCAL_PODS, "blue/web")
        recorder.store.watch_remote_pods(True)
        recorder.wait(REMOTE_PODS, "blue/db")
        cluster.put_pod("cache", "10.244.3.2", "three")
        recorder.wait(REMOTE_PODS, "blue/cache", "blue/db")
        binding: Json = {"metadata": {"name": "unbound"}, "target": {"kind": "Node", "name": "two"}}
        server.call("POST", f"{BLUE}/pods/unbound/binding", {"apiVersion": "v1", "kind": "Binding", **binding})
        recorder.wait(REMOTE_PODS, "blue/cache", "blue/db", "blue/unbound")
        cluster.set_status("cache", phase="Succeeded")
        recorder.wait(REMOTE_PODS, "blue/db", "blue/unbound")
        cluster.set_status("web", phase="Failed")
        until(lambda: getattr(recorder.objects[LOCAL_PODS]["blue", "web"], "finished", False), "it has finished")
        recorder.store.watch_remote_pods(False)
        cluster.delete_pod("db")
        recorder.store.watch_remote_pods(True)
        recorder.wait(REMOTE_PODS, "blue/unbound")
        assert recorder.errors == []


@against_kubernetes
def test_a_pod_that_moves_from_node_to_node_is_known_once(server: Server) -> None:
    cluster = Cluster(server)
    with following() as recorder:
        recorder.store.watch_remote_pods(True)
        until(lambda: recorder.listed == {*KINDS} - {NODES}, "all are listed")
        for turn in range(6):
            kind, node = ((LOCAL_PODS, "one"), (REMOTE_PODS, "two"))[turn % 2]
            cluster.put_pod("web-0", f"10.244.{turn}.2", node)
            until(lambda: addresses(recorder, kind, "web-0") == (bytes([10, 244, turn, 2]),), "it is known there")  # noqa: B023  # until ends in the same turn
            cluster.delete_pod("web-0")
        recorder.wait(LOCAL_PODS)
        recorder.wait(REMOTE_PODS)


@against_kubernetes
def test_what_the_server_has_forgotten_is_made_up_for(server: Server) -> None:
    cluster = Cluster(server)
    cluster.put_policy("one")
    cluster.put_pod("web", "10.244.1.2")
    with Endpoint() as way, following(kubeconfig(ADMIN, server=way.url)) as recorder:
        recorder.wait(POLICIES, "blue/one")
        recorder.wait(LOCAL_PODS, "blue/web")
        way.cut()
        cluster.delete_policy("one")
        cluster.put_policy("two")
        cluster.delete_pod("web")
        server.stop()
        server.compact()
        server.start()
        recorder.wait_error(way.url)
        way.open()
        recorder.wait(POLICIES, "blue/two")
        recorder.wait(LOCAL_PODS)
        recorder.wait_recovered()


@against_kubernetes
def test_cluster_policies_are_known_while_the_cluster_has_their_definition(server: Server) -> None:
    served = f"/apis/{GROUP}/v1alpha2/clusternetworkpolicies"
    server.call("POST", DEFINITIONS, DEFINITION)
    try:
        until(lambda: server.status("GET", served) == 200, "the definition is in force")
        spec = {"tier": "Admin", "priority": 7, "subject": {"namespaces": {}}}
        rules = [{"action": "Deny", "from": [{"namespaces": {}}]}]
        item = {"apiVersion": f"{GROUP}/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "guard"}}
        server.call("POST", served, {**item, "spec": {**spec, "ingress": rules}})
        with following() as recorder:
            recorder.wait(CLUSTER_POLICIES, "guard")
            policy = recorder.objects[CLUSTER_POLICIES]["", "guard"]
            assert isinstance(policy, ClusterPolicy)
            assert (policy.priority, len(policy.ingress), policy.error) == (7, 1, "")
            server.call("PATCH", f"{served}/guard", {"spec": {"priority": 8}}, MERGE)
            until(lambda: recorder.objects[CLUSTER_POLICIES]["", "guard"] != policy, "the change is known")
            server.call("DELETE", f"{served}/guard")
            recorder.wait(CLUSTER_POLICIES)
            assert recorder.errors == []
    finally:
        server.call("DELETE", f"{DEFINITIONS}/clusternetworkpolicies.{GROUP}")


@against_kubernetes
def test_a_kind_that_may_not_be_read_stops_no_other(server: Server) -> None:
    cluster = Cluster(server)
    cluster.put_pod("web", "10.244.1.2")
    rule: Json = {"verbs": ["get", "list", "watch"]}
    name: Json = {"metadata": {"name": "reads-pods"}}
    seen = [
        {**rule, "apiGroups": [""], "resources": ["pods", "namespaces"]},
        {**rule, "apiGroups": [GROUP], "resources": ["clusternetworkpolicies"]},
    ]
    server.call("POST", f"{RBAC}/clusterroles", {**name, "rules": seen})
    bound = {"kind": "User", "name": "reader", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": "reads-pods", "apiGroup": "rbac.authorization.k8s.io"}
    server.call("POST", f"{RBAC}/clusterrolebindings", {**name, "roleRef": role, "subjects": [bound]})
    try:
        with following(kubeconfig(READER)) as recorder:
            recorder.wait(LOCAL_PODS, "blue/web")
            recorder.wait_error("list networkpolicies: 403 Forbidden: ", '"reader"')
            more = {**rule, "apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"]}
            server.call("PATCH", f"{RBAC}/clusterroles/reads-pods", {"rules": [*seen, more]}, MERGE)
            recorder.wait(POLICIES)
            recorder.wait_recovered()
    finally:
        for kind in ("clusterroles", "clusterrolebindings"):
            server.call("DELETE", f"{RBAC}/{kind}/reads-pods")
