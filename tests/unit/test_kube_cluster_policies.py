"""The Kubernetes store of policies against a scripted API: ClusterNetworkPolicies, which a cluster may not have, and
nodes, which are watched while they are wanted.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.policy.clusterpolicy import ClusterPolicy
from cni.agent.policy.events import CLUSTER_POLICIES, NAMESPACES, NODES, ObjectsForgotten
from cni.agent.policy.nodes import Node
from cni.agent.stores.kube import optional, watch
from cni.protocol.address import parse_ip
from tests.machine import until
from tests.unit.kube_api import rejection
from tests.unit.test_kube_policies import RESOURCES, Cluster, namespace, running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("hasty")

RESOURCE = RESOURCES[CLUSTER_POLICIES]
V1ALPHA2, V1BETA1 = (f"/apis/policy.networking.k8s.io/{version}/{RESOURCE}" for version in ("v1alpha2", "v1beta1"))


def clustered(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, **spec},
    }


def node(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}


@pytest.fixture
def api() -> Iterator[Cluster]:
    cluster = Cluster()
    cluster.put(NAMESPACES, namespace("blue"))
    with cluster.server:
        yield cluster


def asked(api: Cluster) -> list[str]:
    """Returns the paths by which policies were listed or watched."""
    paths = [request.path.partition("?")[0] for request in api.server.requests]
    return [path for path in paths if path.endswith(RESOURCE)]


def is_listed(recorder: Any) -> bool:
    return CLUSTER_POLICIES in recorder.listed


def test_policies_are_listed_and_followed(api: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    api.put(CLUSTER_POLICIES, clustered("guard", ingress=[{"action": "Deny", "from": [{}]}]))
    with running(api) as recorder:
        recorder.wait(CLUSTER_POLICIES, "guard")
        policy = recorder.objects[CLUSTER_POLICIES]["", "guard"]
        assert isinstance(policy, ClusterPolicy)
        assert (
            "ClusterNetworkPolicy guard: rules in doubt accept nothing, or deny everything: spec.ingress[0]"
            in caplog.text
        )
        api.wait_watched(CLUSTER_POLICIES)
        names = [{"domainNames": ["a.example"]}]
        api.put(CLUSTER_POLICIES, clustered("names", egress=[{"action": "Accept", "to": names}]))
        recorder.wait(CLUSTER_POLICIES, "guard", "names")
        assert "names: spec.egress[0].to[0].domainNames: not supported, matches nothing" in caplog.text
        api.delete(CLUSTER_POLICIES, "guard")
        recorder.wait(CLUSTER_POLICIES, "names")
    assert set(asked(api)) == {V1ALPHA2}


def test_a_fault_is_logged_when_it_comes_and_not_with_every_change_of_what_does_not_matter(
    api: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(CLUSTER_POLICIES, clustered("guard", priority=1001))
    with running(api) as recorder:
        until(lambda: is_listed(recorder), "they are listed")
        api.wait_watched(CLUSTER_POLICIES)
        again = clustered("guard", priority=1001)
        again["metadata"]["labels"] = {"seen": "twice"}
        api.put(CLUSTER_POLICIES, again)
        api.put(CLUSTER_POLICIES, clustered("other"))
        recorder.wait(CLUSTER_POLICIES, "guard", "other")
        reason = "ClusterNetworkPolicy guard is ignored: spec.priority: expected an integer between 0 and 1000"
        assert caplog.text.count(reason) == 1
        api.put(CLUSTER_POLICIES, clustered("guard", priority=-1, tier="Middle"))
        until(lambda: "ClusterNetworkPolicy guard is ignored: spec.tier: 'Middle'" in caplog.text, "it is logged")


def test_without_the_definition_there_are_none_and_it_is_looked_for_again(
    api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = api.collections.pop(RESOURCE)
    with running(api) as recorder:
        until(lambda: is_listed(recorder), "they are listed")
        assert asked(api) == [V1ALPHA2, V1BETA1]
        assert recorder.errors == []
    assert optional.LOOK_SECONDS == 300
    monkeypatch.setattr(optional, "LOOK_SECONDS", 0.05)
    api.server.over.clear()
    with running(api) as recorder:
        until(lambda: is_listed(recorder), "they are listed")
        api.collections[RESOURCE] = collection
        api.put(CLUSTER_POLICIES, clustered("late"))
        recorder.wait(CLUSTER_POLICIES, "late")


def test_with_the_definition_the_policies_go(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch, "WATCH_SECONDS", (1, 1))
    api.put(CLUSTER_POLICIES, clustered("guard"))
    with running(api) as recorder:
        recorder.wait(CLUSTER_POLICIES, "guard")
        until(lambda: (CLUSTER_POLICIES,) in recorder.store.heard(), "they are watched")
        api.collections.pop(RESOURCE)
        recorder.wait(CLUSTER_POLICIES)
        assert recorder.errors == []
        assert (CLUSTER_POLICIES,) not in recorder.store.heard()  # it is not silent, but absent


def test_the_second_version_is_read_where_there_is_no_first(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    respond = api.respond
    monkeypatch.setattr(
        api,
        "respond",
        lambda verb, request: rejection(404, "") if V1ALPHA2 in request.path else respond(verb, request),
    )
    api.put(CLUSTER_POLICIES, clustered("guard"))
    with running(api) as recorder:
        recorder.wait(CLUSTER_POLICIES, "guard")
        assert recorder.errors == []


def test_a_role_without_them_is_an_error_and_after_a_while_there_are_none(
    api: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbidden = [rejection(403, "clusternetworkpolicies is forbidden")] * 500
    api.fail_all("list", CLUSTER_POLICIES, *forbidden)
    monkeypatch.setattr(optional, "FORBIDDEN_SECONDS", math.inf)
    with running(api) as recorder:
        recorder.wait_error("list clusternetworkpolicies: 403 Forbidden: clusternetworkpolicies is forbidden")
        time.sleep(0.2)
        assert not is_listed(recorder), "the server may have just started"
        monkeypatch.setattr(optional, "FORBIDDEN_SECONDS", 0.0)
        until(lambda: is_listed(recorder), "they are listed")
        assert recorder.failure
        api.script.clear()
        api.put(CLUSTER_POLICIES, clustered("guard"))
        recorder.wait(CLUSTER_POLICIES, "guard")
        recorder.wait_recovered()


def test_what_is_known_stays_while_it_may_not_be_read(api: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "FORBIDDEN_SECONDS", 0.0)
    monkeypatch.setattr(watch, "WATCH_SECONDS", (1, 1))
    api.put(CLUSTER_POLICIES, clustered("guard"))
    with running(api) as recorder:
        recorder.wait(CLUSTER_POLICIES, "guard")
        for verb in ("list", "watch"):
            api.fail_all(verb, CLUSTER_POLICIES, *[rejection(403, "no longer")] * 500)
        recorder.wait_error("403 Forbidden: no longer")
        time.sleep(0.2)
        assert recorder.names(CLUSTER_POLICIES) == {"guard"}


def test_nodes_are_watched_only_while_they_are_wanted(api: Cluster) -> None:
    api.put(NODES, node("n1", "192.0.2.1"))
    with running(api) as recorder:
        assert api.count("list", NODES) == 0
        recorder.store.watch_nodes(True)
        recorder.wait(NODES, "n1")
        assert recorder.objects[NODES]["", "n1"] == Node("n1", (), (parse_ip("192.0.2.1").packed,))
        api.put(NODES, node("n2", "192.0.2.2"))
        recorder.wait(NODES, "n1", "n2")
        recorder.store.watch_nodes(False)
        recorder.store.watch_nodes(False)
        assert recorder.events[-1] == ObjectsForgotten(NODES, frozenset([("", "n1"), ("", "n2")]))
        recorder.store.watch_nodes(True)
        recorder.wait(NODES, "n1", "n2")
