"""podwired and the real flanneld on a node of Kubernetes: what they write, and one in the other's place."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import until
from tests.system.kube_server import FOLDER, Server, flannels, kubeconfig, write
from tests.system.kube_store import NETWORK, ONE, in_kubernetes, node_of, store_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.machine import Machine

pytest_plugins = ("tests.system.kube_machine",)
pytestmark = pytest.mark.xdist_group("kubernetes")

WAYS = [pytest.param(kind, families) for kind in ("vxlan", "host-gw") for families in ((4,), (6,), (4, 6))]
CIDRS = {4: ONE, 6: "fd00:244:0:1::/64"}
MAC = re.compile("(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
HEALTH_PORT = 8081


@pytest.mark.parametrize(("kind", "families"), WAYS)
def test_annotations_are_byte_for_byte_those_of_flanneld(
    kubernetes: Machine, flanneld: Path, kind: str, families: tuple[int, ...]
) -> None:
    """Only the VTEP's MAC address is each one's own."""

    def scenario(server: Server) -> None:
        network = network_of(kind, families)
        annotations = []
        for program in (str(flanneld), ""):
            server.add("one", *[CIDRS[family] for family in families])
            if program:
                with agent(program, network):
                    server.wait_written("one", **{"kube-subnet-manager": "true"})
                    annotations.append(server.annotations("one"))
            else:
                with store_of(node_of(1, *families, kind=kind), network) as recorder:
                    recorder.wait_held()
                    annotations.append(server.annotations("one"))
            server.delete("one")
            clean()
        theirs, ours = [{key: MAC.sub("MAC", text) for key, text in annotation.items()} for annotation in annotations]
        assert ours == theirs
        assert annotations[0].keys() == annotations[1].keys()

    in_kubernetes(kubernetes, scenario)


def test_one_agent_takes_over_from_the_other_and_nothing_changes_for_other_nodes(
    kubernetes: Machine, flanneld: Path, podwired: Path
) -> None:
    def scenario(server: Server) -> None:
        server.add("one", ONE)
        server.peer("two", 2)
        network = network_of("vxlan", (4,))
        seen = []
        for program in (flanneld, podwired, flanneld):
            with agent(str(program), network):
                until(is_ready, f"{program} is ready")
                until(lambda: route("10.244.2.0/24"), "the other node is reached")
                until(lambda: server.condition("one"), "the node is available")
                seen.append((server.annotations("one"), server.condition("one")["reason"], device()))
        assert seen[0] == seen[1] == seen[2]
        clean()

    in_kubernetes(kubernetes, scenario)


def test_podwired_serves_a_node_of_kubernetes_by_itself(kubernetes: Machine, podwired: Path) -> None:
    """With the permissions that flannel's manifest gives, and no more."""

    def scenario(server: Server) -> None:
        server.add("one")
        server.peer("two", 2)
        with agent(str(podwired), network_of("vxlan", (4,))):
            until(lambda: "has no pod CIDR yet" in log(), "it says what it waits for")
            assert not is_ready()
            server.patch("one", {"spec": {"podCIDR": ONE, "podCIDRs": [ONE]}})
            until(is_ready, "it is ready")
            assert "FLANNEL_SUBNET=10.244.1.1/24" in Path(FOLDER, "subnet.env").read_text()
            assert flannels(1).items() - server.annotations("one").items() == {
                ("backend-data", flannels(1)["backend-data"])
            }
            until(lambda: server.condition("one").get("reason") == "FlannelIsUp", "the node is available")
            until(lambda: route("10.244.2.0/24"), "the other node is reached")
            server.peer("three", 3)
            until(lambda: route("10.244.3.0/24"), "the new node is reached")
            server.delete("two")
            until(lambda: not route("10.244.2.0/24"), "the old node is forgotten")
        clean()

    in_kubernetes(kubernetes, scenario)


def network_of(kind: str, families: tuple[int, ...]) -> dict[str, Any]:
    """With IPv6 alone there is no key of IPv4. flanneld needs nftables where no bridge filters packets."""
    network: dict[str, Any] = {"EnableNFTables": True, "Backend": {"Type": kind}, "EnableIPv4": 4 in families}
    if 4 in families:
        network["Network"] = NETWORK["Network"]
    return network | ({"EnableIPv6": True, "IPv6Network": "fd00:244::/56"} if 6 in families else {})


@contextmanager
def agent(program: str, network: dict[str, Any], *more: str) -> Iterator[None]:
    """One that runs on the node `one`, told to end at the end."""
    config = write("net-conf.json", json.dumps(network))
    flags = [f"--kubeconfig-file={kubeconfig()}", f"--net-config-path={config}", "--iface=uplink", "--kube-subnet-mgr"]
    health = ["--healthz-ip=127.0.0.1", f"--healthz-port={HEALTH_PORT}", f"--subnet-file={FOLDER}/subnet.env"]
    with open(f"{FOLDER}/agent.log", "wb") as log_file:
        process = subprocess.Popen(
            [program, *flags, *health, *more],
            env={**os.environ, "NODE_NAME": "one"},
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
        )
    try:
        yield
    except BaseException as error:
        error.add_note(log())
        raise
    finally:
        process.terminate()
        process.wait()


def log() -> str:
    return Path(FOLDER, "agent.log").read_text()


def is_ready() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", HEALTH_PORT, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    return False


def route(subnet: str) -> list[Any]:
    return shown("route", "show", subnet)


def device() -> tuple[int, str]:
    """Its index and MAC address."""
    (links,) = shown("link", "show", "flannel.1")
    return links["ifindex"], links["address"]


def shown(*arguments: str) -> list[Any]:
    done = subprocess.run(["ip", "-j", *arguments], capture_output=True, text=True, check=True)
    objects: list[Any] = json.loads(done.stdout or "[]")
    return objects


def clean() -> None:
    """No later agent is to know what these had."""
    for link in ("flannel.1", "flannel-v6.1"):
        subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
    with suppress(FileNotFoundError):
        os.unlink(f"{FOLDER}/subnet.env")
