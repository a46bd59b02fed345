"""podwired enforces the policies of a real API server, with the rights that the manifest gives."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.machine import until
from tests.system.kube_server import RBAC, Server
from tests.system.kube_store import ONE, in_kubernetes
from tests.system.test_agent_kube_flannel import agent, clean, is_ready, network_of
from tests.system.test_agent_kube_policies import BLUE, MERGE, Cluster

if TYPE_CHECKING:
    from tests.machine import Machine

pytest_plugins = ("tests.system.kube_machine",)
pytestmark = pytest.mark.xdist_group("kubernetes")

MANIFEST = Path(__file__).parents[2] / "conf/kubernetes/podwire.yaml"
DB, WEB = {"matchLabels": {"app": "db"}}, {"matchLabels": {"app": "web"}}


def rules() -> list[Any]:
    roles = [document for document in yaml.safe_load_all(MANIFEST.read_text()) if document["kind"] == "ClusterRole"]
    listed: list[Any] = roles[0]["rules"]
    return listed


def table() -> list[dict[str, Any]]:
    command = ["nft", "-j", "list", "table", "inet", "podwire-policy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    listed: list[dict[str, Any]] = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
    return listed


def isolated() -> list[str]:
    maps = [item["map"] for item in table() if "map" in item]
    return [element[0] for item in maps if item["name"] == "ingress4" for element in item.get("elem", [])]


def allowed() -> list[str]:
    sets = [item["set"] for item in table() if "set" in item]
    return [element for item in sets if item["name"].startswith("pods/") for element in item.get("elem", [])]


def test_policies_of_a_cluster_become_sets_and_chains(kubernetes: Machine, podwired: Path) -> None:
    def scenario(server: Server) -> None:
        before = server.call("GET", f"{RBAC}/clusterroles/podwired")["rules"]
        server.call("PATCH", f"{RBAC}/clusterroles/podwired", {"rules": rules()}, MERGE)
        cluster = Cluster(server)
        server.add("one", ONE)
        with agent(str(podwired), network_of("host-gw", (4,)), "--network-policy"):
            until(is_ready, "it is ready")
            until(table, "the table is there")
            cluster.put_pod("db", "10.244.1.2", app="db")
            cluster.put_pod("web", "10.244.2.2", "two", app="web")
            cluster.put_policy("from-web", podSelector=DB, ingress=[{"from": [{"podSelector": WEB}]}])
            until(lambda: (isolated(), allowed()) == (["10.244.1.2"], ["10.244.2.2"]), "the policy is in force")
            server.call("PATCH", f"{BLUE}/pods/web", {"metadata": {"labels": {"app": "other"}}}, MERGE)
            until(lambda: (isolated(), allowed()) == (["10.244.1.2"], []), "the pod is another")
            cluster.delete_policy("from-web")
            until(lambda: isolated() == [], "nothing is isolated")
        assert table()
        subprocess.run(["nft", "delete", "table", "inet", "podwire-policy"], check=True)
        server.call("PATCH", f"{RBAC}/clusterroles/podwired", {"rules": before}, MERGE)
        clean()

    in_kubernetes(kubernetes, scenario)
