"""The Kubernetes store's way to a real API server: outages, what the server forgets, credentials, and who may what."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cni.agent.model.events import Configured, Held, Listed
from tests.machine import until
from tests.system.kube_server import (
    ADMIN,
    AGENT,
    AGENT_TOO,
    FOLDER,
    PORT,
    PREFIX,
    READER,
    STRANGER,
    Server,
    flannels,
    kubeconfig,
    write,
)
from tests.system.kube_store import ONE, Endpoint, against_kubernetes, lease_of, node_of, store_of

pytest_plugins = ("tests.system.kube_machine",)
pytestmark = pytest.mark.xdist_group("kubernetes")

MANY = 2000
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


@against_kubernetes
def test_what_happened_while_the_way_was_cut_is_made_up_for(server: Server) -> None:
    """The watch goes on where it ended: nothing is listed again."""
    server.add("one", ONE)
    for number in (2, 3):
        server.peer(f"peer-{number}", number)
    with Endpoint() as endpoint, store_of(node_of(1), kubeconfig=kubeconfig(server=endpoint.url)) as recorder:
        recorder.wait_leases("peer-2", "peer-3")
        endpoint.cut()
        server.delete("peer-2")
        server.annotate("peer-3", public_ip="192.0.2.33")
        server.peer("peer-4", 4)
        recorder.wait_error(endpoint.url, "Connection refused")
        endpoint.open()
        recorder.wait_leases("peer-3", "peer-4")
        assert recorder.leases["peer-3"] == lease_of(3, ip=33, name="peer-3")
        assert len(recorder.of(Listed)) == 1
        until(lambda: recorder.failure == "", "the fault is over")


@against_kubernetes
def test_what_the_server_has_forgotten_is_listed_again(server: Server) -> None:
    server.add("one", ONE)
    for number in (2, 3):
        server.peer(f"peer-{number}", number)
    with Endpoint() as endpoint, store_of(node_of(1), kubeconfig=kubeconfig(server=endpoint.url)) as recorder:
        recorder.wait_leases("peer-2", "peer-3")
        endpoint.cut()
        server.delete("peer-2")
        server.peer("peer-4", 4)
        server.stop()
        server.compact()
        server.start()
        endpoint.open()
        until(lambda: len(recorder.of(Listed)) == 2, "all are listed again")
        assert recorder.leases.keys() == {"peer-3", "peer-4"}
        server.peer("peer-5", 5)
        recorder.wait_leases("peer-3", "peer-4", "peer-5")


@against_kubernetes
def test_a_server_that_is_started_again_is_followed_again(server: Server) -> None:
    server.add("one", ONE)
    server.peer("two", 2)
    with store_of(node_of(1)) as recorder:
        recorder.wait_leases("two")
        server.stop()
        recorder.wait_error("Connection refused")
        server.start()
        server.peer("three", 3)
        recorder.wait_leases("two", "three")
        assert recorder.failure == ""
        server.annotate("one", public_ip="192.0.2.99")
        server.wait_written("one", public_ip="192.0.2.1")


@against_kubernetes
def test_a_server_at_an_older_state_is_listed_anew(server: Server) -> None:
    """As after its etcd was restored from a backup."""
    server.add("one", ONE)
    server.stop()
    server.stop_etcd()
    shutil.copytree(f"{FOLDER}/data", f"{FOLDER}/backup")
    server.start_etcd()
    server.start()
    with store_of(node_of(1)) as recorder:
        recorder.wait_held()
        for number in range(2, 12):
            server.peer(f"peer-{number}", number)
        recorder.wait_leases(*[f"peer-{number}" for number in range(2, 12)])
        server.stop()
        server.stop_etcd()
        shutil.rmtree(f"{FOLDER}/data")
        os.rename(f"{FOLDER}/backup", f"{FOLDER}/data")
        server.start_etcd()
        server.start()
        recorder.wait_leases()
        server.peer("new", 20)
        recorder.wait_leases("new")
        server.wait_written("one", **flannels(1))


@against_kubernetes
def test_a_token_that_is_replaced_is_taken_up_without_a_word(server: Server) -> None:
    server.add("one", ONE)
    write("token", f"{AGENT}\n")
    with store_of(node_of(1), kubeconfig=kubeconfig("", tokenFile="token")) as recorder:
        recorder.wait_held()
        write("token", f"{AGENT_TOO}\n")
        server.annotate("one", public_ip="192.0.2.99")
        server.wait_written("one", public_ip="192.0.2.1")
        assert recorder.errors == []
        server.restart(AGENT_TOO, ADMIN)
        server.peer("two", 2)
        recorder.wait_leases("two")
        assert not any("401" in reason for reason in recorder.errors)
    server.restart()


@against_kubernetes
def test_credentials_that_the_server_knows_no_more_are_read_again(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1), kubeconfig=kubeconfig()) as recorder:
        recorder.wait_held()
        server.restart(AGENT_TOO, ADMIN)
        recorder.wait_error("401 Unauthorized (invalid token or certificate)")
        kubeconfig(AGENT_TOO)
        server.peer("two", 2)
        recorder.wait_leases("two")
    server.restart()


@against_kubernetes
def test_a_client_s_certificate_serves_as_well(server: Server) -> None:
    """In a file, or in the kubeconfig; its name is that of the user with our permissions."""
    server.add("one", ONE)
    files = {"client-certificate": "client.crt", "client-key": "client.key"}
    with store_of(node_of(1), kubeconfig=kubeconfig("", **files)) as recorder:
        recorder.wait_held()


@against_kubernetes
def test_who_may_not_list_nodes_is_told_so(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1), kubeconfig=kubeconfig(STRANGER)) as recorder:
        recorder.wait_error("list nodes: 403 Forbidden", 'User "stranger" cannot list resource "nodes"')
        kubeconfig(AGENT)
    with store_of(node_of(1), kubeconfig=kubeconfig("unknown")) as recorder:
        recorder.wait_error("list nodes: 401 Unauthorized")


@against_kubernetes
def test_who_may_not_write_is_told_so_and_has_no_lease(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1), kubeconfig=kubeconfig(READER)) as recorder:
        recorder.wait_error("patch nodes/status: 403 Forbidden", 'cannot patch resource "nodes/status"')
        assert not recorder.of(Held)


@against_kubernetes
def test_a_server_is_trusted_by_its_certificate_alone(server: Server) -> None:
    server.add("one", ONE)
    config = json.loads(Path(kubeconfig()).read_text())
    (entry,) = config["clusters"]
    with store_of(None, kubeconfig=write("strange", json.dumps(config).replace("ca.crt", "client.crt"))) as recorder:
        recorder.wait_error("certificate verify failed")
    entry["cluster"]["tls-server-name"] = "other.test"
    with store_of(None, kubeconfig=write("strange", json.dumps(config))) as recorder:
        recorder.wait_error("certificate verify failed", "other.test")
    entry["cluster"]["tls-server-name"] = "kube.test"
    with store_of(None, kubeconfig=write("strange", json.dumps(config))) as recorder:
        until(lambda: recorder.of(Configured), "the server is trusted by another name")
    entry["cluster"] = {"server": entry["cluster"]["server"], "insecure-skip-tls-verify": True}
    with store_of(None, kubeconfig=write("strange", json.dumps(config))) as recorder:
        until(lambda: recorder.of(Configured), "any server is trusted")


@against_kubernetes
def test_a_node_that_is_renumbered_connects_anew(server: Server) -> None:
    server.add("one", ONE)
    with Endpoint() as endpoint, store_of(node_of(1), kubeconfig=kubeconfig(server=endpoint.url)) as recorder:
        recorder.wait_held()
        before = endpoint.taken
        recorder.store.register(node_of(9))
        server.wait_written("one", **flannels(9))
        until(lambda: endpoint.taken - before >= 2, "watch and writes have new connections")
        server.peer("two", 2)
        recorder.wait_leases("two")
        assert recorder.errors == []


@against_kubernetes
def test_a_pod_is_asked_for_its_node(server: Server) -> None:
    """The service account's files and variables are those of a pod."""
    server.add("one", ONE)
    containers = [{"name": "agent", "image": "none"}]
    pod = {"metadata": {"name": "agent-x"}, "spec": {"nodeName": "one", "containers": containers}}
    server.call("POST", "/api/v1/namespaces/flannel/pods", pod)
    os.makedirs(ACCOUNT)
    Path(ACCOUNT, "token").write_text(AGENT)
    shutil.copy(f"{FOLDER}/ca.crt", ACCOUNT)
    service = f"https://127.0.0.1:{PORT}"
    with store_of(node_of(1), node_name="", pod=("flannel", "agent-x"), service=service) as recorder:
        recorder.wait_held(ONE)
    with store_of(node_of(1), node_name="", pod=("flannel", "agent-y"), service=service) as recorder:
        recorder.wait_error("get pods: 404 Not Found", 'pods "agent-y" not found')


@against_kubernetes
def test_thousands_of_nodes_are_listed_page_by_page(server: Server) -> None:
    server.add("one", ONE)

    def add(number: int) -> None:
        low, high = number % 256, number // 256
        annotations = {**flannels(2), "public-ip": f"198.18.{high}.{low}"}
        annotations["backend-data"] = json.dumps({"VNI": 1, "VtepMAC": f"02:00:00:00:{high:02x}:{low:02x}"})
        server.add(
            f"n{number}", f"10.{245 + high}.{low}.0/24", annotations={PREFIX + k: v for k, v in annotations.items()}
        )

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(MANY)))
    with store_of(node_of(1)) as recorder:
        recorder.wait_held()
        assert len(recorder.leases) == MANY
        assert not any(isinstance(lease, str) for lease in recorder.leases.values())
        server.delete("n7")
        until(lambda: "n7" not in recorder.leases, "one is gone")
