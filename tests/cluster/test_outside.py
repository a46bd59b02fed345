"""The world outside the cluster: it sees nodes, never pods, and is seen by pods where they ask for it."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.cluster import objects
from tests.cluster.access import finished, until
from tests.cluster.conftest import made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import Cluster, Node
    from tests.cluster.conftest import Pods

# Says who asks, in a line, until its input ends.
_SERVER = """
import socket, sys, threading
def by_tcp():
    while True:
        caller, address = tcp.accept()
        caller.sendall(address[0].encode() + b"\\n")
        caller.close()
def by_udp():
    while True:
        _, address = udp.recvfrom(64)
        udp.sendto(address[0].encode() + b"\\n", address)
tcp = socket.create_server((sys.argv[1], 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(tcp.getsockname())
for serve in (by_tcp, by_udp):
    threading.Thread(target=serve, daemon=True).start()
print(tcp.getsockname()[1], flush=True)
sys.stdin.read()
"""
_CLIENT = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


class Outside(NamedTuple):
    """A machine that is no node."""

    command: list[str]
    address: str

    def answered_from(self, host: str, port: int, question: str = "clientip") -> str:
        """Returns the answer, as soon as there is one."""
        url = f"http://{host}:{port}/{question}"
        return until(lambda: finished([*self.command, "python3", "-c", _CLIENT, url]).strip(), f"{url} answers")

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Yields the port where it says who asks, by TCP and UDP."""
        command = [*self.command, "python3", "-c", _SERVER, self.address]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin
            assert server.stdout
            yield int(server.stdout.readline())
            server.stdin.close()


@pytest.fixture
def outside(cluster: Cluster, nodes: tuple[Node, Node]) -> Outside:
    if not cluster.outside_command:
        pytest.skip("PODWIRE_OUTSIDE_COMMAND does not say how to run programs outside the cluster")
    routes = json.loads(finished([*cluster.outside_command, "ip", "-j", "route", "get", nodes[0].address]))
    return Outside(cluster.outside_command, routes[0]["prefsrc"])


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_world_sees_pods_by_the_address_of_their_node(
    pods: Pods, nodes: tuple[Node, Node], outside: Outside, protocol: str
) -> None:
    options = {"tcp": "-w 5", "udp": "-u -w 2"}[protocol]
    with outside.serving() as port:
        for pod, node in ((pods.here, nodes[0]), (pods.unreachable, nodes[1])):
            script = f"echo who | nc {options} {outside.address} {port}"
            assert pod.told_by(script) == node.address


def test_the_world_reaches_a_port_of_the_nodes_and_a_local_one_sees_it(
    cluster: Cluster, pods: Pods, nodes: tuple[Node, Node], outside: Outside
) -> None:
    local = objects.service("seen", {"app": "far"}, type="NodePort", externalTrafficPolicy="Local")
    cluster.apply(objects.service("open", {"app": "far"}, type="NodePort"), local)
    port, local_port = (objects.node_port(cluster, name) for name in ("open", "seen"))
    for node in nodes:
        assert outside.answered_from(node.address, port, "hostname") == pods.unreachable.name
    seen = outside.answered_from(nodes[1].address, local_port)
    cluster.delete("service", "open", "seen")
    assert seen.rpartition(":")[0] == outside.address


def test_the_world_reaches_a_port_of_the_host_and_is_seen(
    cluster: Cluster, nodes: tuple[Node, Node], outside: Outside
) -> None:
    made(cluster, objects.pod("open", nodes[0].name, ports=[{"containerPort": objects.TCP, "hostPort": 28081}]))
    seen = outside.answered_from(nodes[0].address, 28081)
    cluster.delete("pod", "open")
    assert seen.rpartition(":")[0] == outside.address
