"""The state of a node as podwired tells it: `podwire status`, from a running podwired."""

from __future__ import annotations

import http.client
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import Machine, until
from tests.system.programs import Program

if TYPE_CHECKING:
    from pathlib import Path

NODES = "/run/nodes.json"
HEALTH_PORT = 8081
GET = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=30)
connection.request("GET", sys.argv[3])
answer = connection.getresponse()
print(answer.status, answer.headers["Content-Type"])
print(answer.read().decode())
"""
UNDERLAY = """link add eth0 type veth peer name other
link set other up
address add 192.0.2.1/24 dev eth0
link set eth0 up
route add default via 192.0.2.254
"""
ONE, TWO, FAR = (
    {"name": f"node{number}", "PublicIP": ip, "Subnet": f"10.5.{number}.0/24"}
    for number, ip in ((1, "192.0.2.1"), (2, "192.0.2.2"), (3, "198.51.100.3"))
)
ELSEWHERE = {"name": "odd<b>", "PublicIP": "192.0.2.9", "Subnet": "10.9.0.0/24"}


class Agent:
    """podwired on a machine, by a file of nodes."""

    def __init__(self, machine: Machine, programs: Path) -> None:
        self.machine, self._programs = machine, programs

    def write(self, *nodes: dict[str, str]) -> None:
        backend = {"Type": "vxlan", "DirectRouting": True}
        text = json.dumps({"Network": "10.5.0.0/16", "Backend": backend, "nodes": nodes})
        self.machine.run("sh", "-ec", f"cat >{NODES}.new && mv {NODES}.new {NODES}", stdin=text)

    def start(self, *flags: str) -> Program:
        flags = (f"--nodes-file={NODES}", "--node-name=node1", *flags)
        return Program(self.machine, "agent", str(self._programs / "podwired"), *flags)

    def status(self, *arguments: str, program: str = "podwired") -> tuple[int, str]:
        path = str(self._programs / program)
        done = self.machine.run("env", "-i", path, "status", *arguments, check=False)
        return done.returncode, done.stdout + done.stderr

    def answer(self) -> dict[str, Any]:
        """Returns the answer; empty without one."""
        status, text = self.status("--json")
        answer: dict[str, Any] = json.loads(text) if status in (0, 1) else {}
        return answer


def get(host: str, path: str) -> tuple[int, str, str]:
    """Inside: returns status, content type and body of podwired's answer at its health port."""
    connection = http.client.HTTPConnection(host, HEALTH_PORT, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except OSError:
        return 0, "", ""
    finally:
        connection.close()


@pytest.fixture
def agent(usual_machine: Machine, bundle: Path) -> Agent:
    usual_machine.run("ip", "-batch", "-", stdin=UNDERLAY)
    return Agent(usual_machine, bundle)


def test_status_tells_what_the_node_has_and_what_is_wrong(agent: Agent) -> None:
    assert agent.status()[0] == 3
    agent.write(ONE, TWO, FAR)
    agent.start()
    until(lambda: agent.status()[0] == 0, "the node is ready")
    assert agent.machine.run("stat", "-c", "%a %F", "/run/podwire/podwired.sock").stdout == "600 socket\n"
    answer = agent.answer()
    assert (answer["version"], answer["ask"], answer["node"], answer["ready"]) == (1, "status", "node1", True)
    assert answer["lease"] == {"subnets": ["10.5.1.0/24"], "public_ips": ["192.0.2.1"]}
    assert answer["uplink"] == {"interface": "eth0", "addresses": ["192.0.2.1/24"], "mtu": 1500, "up": True}
    [tunnel] = answer["tunnels"]
    assert {key: tunnel[key] for key in ("device", "mtu", "vni", "port")} == {
        "device": "flannel.1", "mtu": 1450, "vni": 1, "port": 8472,
    }  # fmt: skip
    peers = {peer["endpoints"][0]["subnet"]: peer for peer in answer["peers"]}
    assert {subnet: peer["state"] for subnet, peer in peers.items()} == {
        "10.5.2.0/24": "direct", "10.5.3.0/24": "vxlan",
    }  # fmt: skip
    assert [peer["name"] for peer in peers.values()] == ["node2", "node3"]
    assert peers["10.5.3.0/24"]["endpoints"][0]["applied"] == {"route": True, "neighbour": True, "fdb": True}
    assert answer["store"]["kind"] == "nodes file"
    text = agent.status(program="podwire")[1]
    assert text.startswith("node1: ready (podwired ")

    agent.write(ONE, TWO, FAR, ELSEWHERE)
    until(lambda: agent.answer()["counts"]["refused"] == 1 or agent.answer()["store"]["error"], "the entry is seen")
    status, text = agent.status()
    assert status == 1, text
    assert "10.9.0.0/24" in text

    agent.write(ONE, TWO, FAR)
    agent.machine.run("ip", "link", "set", "eth0", "down")
    until(lambda: not agent.answer()["ready"], "the node is not ready")
    assert agent.answer()["reasons"] == ["eth0 is down: other nodes are not reached"]
    assert agent.status()[0] == 1


def test_the_page_has_details_for_callers_on_the_node_and_numbers_for_others(agent: Agent) -> None:
    machine, pod = agent.machine, agent.machine.pod("pod")
    machine.run("sh", "-ec", f"ip link add name veth0 type veth peer name eth0 netns {pod.path}")
    machine.run("sh", "-ec", "ip address add 172.30.0.1/24 dev veth0; ip link set veth0 up")
    pod.run("sh", "-ec", "ip address add 172.30.0.2/24 dev eth0; ip link set eth0 up")
    agent.write(ONE, TWO, FAR)
    agent.start(f"--healthz-port={HEALTH_PORT}")
    until(lambda: agent.status()[0] == 0, "the node is ready")
    paths = {"/": "text/html; charset=utf-8", "/api/v1/status": "application/json"}
    until(lambda: "10.5.3.0/24" in machine.call(get, "127.0.0.1", "/")[2], "the page shows the peers")
    for path, kind in paths.items():
        status, shown, text = machine.call(get, "127.0.0.1", path)
        assert (status, shown) == (200, kind)
        assert all(word in text for word in ("node1", "10.5.2.0/24", "192.0.2.2", "eth0"))
        text = pod.run(sys.executable, "-c", GET, "172.30.0.1", str(HEALTH_PORT), path).stdout
        assert text.startswith(f"200 {kind}")
        assert not any(word in text for word in ("node1", "10.5.", "192.0.2.", "eth0"))
    answer = json.loads(text.splitlines()[1])
    assert answer["counts"] == {"peers": 2, "failed": 0, "unreachable": 0, "vxlan": 1, "direct": 1, "refused": 0}
