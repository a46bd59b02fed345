"""The lives of pods: kubelet probes them, limits hold them, and nothing is left of those that went."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import objects
from tests.cluster.access import Pod, until
from tests.cluster.conftest import made
from tests.cluster.nodestate import states, wait_for_leases_of_pods, wait_for_states

if TYPE_CHECKING:
    from tests.cluster.access import Cluster, Json, Node
    from tests.cluster.conftest import Pods

BITS = 16_000_000  # a second
BYTES_MORE = 20_000_000  # than may pass at once: containerd asks for 512 MiB
PORT = 9000
ROUNDS, PODS = 3, 30


def restarts(pod: Pod) -> int:
    return int(pod.now["status"]["containerStatuses"][0]["restartCount"])


def test_probes_reach_their_pods(cluster: Cluster, nodes: tuple[Node, Node]) -> None:
    by_http = {"httpGet": {"path": "/healthz", "port": objects.TCP}, "periodSeconds": 1, "timeoutSeconds": 10}
    by_tcp = {"tcpSocket": {"port": objects.TCP}, "periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 10}
    alive = {
        "readinessProbe": by_tcp,
        "livenessProbe": {**by_http, "failureThreshold": 10},
        "startupProbe": {**by_http, "failureThreshold": 60},
    }
    made(cluster, *(objects.pod(f"probed-{index}", node.name, probes=alive) for index, node in enumerate(nodes)))
    assert [restarts(Pod(cluster, f"probed-{index}")) for index, _ in enumerate(nodes)] == [0, 0]
    cluster.delete("pod", "probed-0", "probed-1")


def test_a_pod_that_fails_its_probe_is_started_again_and_keeps_its_address(
    cluster: Cluster, nodes: tuple[Node, Node]
) -> None:
    alive = {"httpGet": {"path": "/healthz", "port": objects.TCP}, "periodSeconds": 1, "failureThreshold": 1}
    ailing = objects.pod("ailing", nodes[0].name, ["/agnhost", "liveness"], probes={"livenessProbe": alive})
    made(cluster, ailing)
    pod = Pod(cluster, "ailing")
    address = pod.address
    until(lambda: restarts(pod) > 0, "kubelet starts it again")
    assert pod.address == address
    cluster.delete("pod", "ailing")


@pytest.mark.usefixtures("node_command")
def test_limits_hold_both_ways(cluster: Cluster, pods: Pods, nodes: tuple[Node, Node]) -> None:
    made(cluster, objects.pod("limited", nodes[0].name, annotations=objects.limits(str(BITS))))
    limited = Pod(cluster, "limited")
    device = host_interface(cluster, nodes[0].name, limited)
    detours = cluster.on(nodes[0].name, "tc", "filter", "show", "dev", device, "ingress")
    outgoing = next(word.strip(")") for word in detours.split() if word.startswith("ifb"))
    buckets = {name: bucket(cluster, nodes[0].name, name) for name in (device, outgoing)}
    assert {name: qdisc["options"]["rate"] for name, qdisc in buckets.items()} == dict.fromkeys(buckets, BITS // 8)
    for sender, receiver, name in ((pods.neighbour, limited, device), (limited, pods.neighbour, outgoing)):
        burst = int(buckets[name]["options"]["burst"])
        sent = burst + BYTES_MORE
        seconds = transfer(sender, receiver, sent)
        assert sent <= burst + 1.25 * BITS / 8 * seconds, f"{sent} bytes took {seconds} s"
    cluster.delete("pod", "limited")
    until(lambda: outgoing not in cluster.on(nodes[0].name, "ip", "link"), f"{outgoing} is gone")


@pytest.mark.usefixtures("node_command")
def test_nothing_is_left_of_pods_that_went(cluster: Cluster, nodes: tuple[Node, Node]) -> None:
    round_of_pods(cluster, nodes, 2)  # what all pods share is made by the first, and stays
    for node in nodes:
        wait_for_leases_of_pods(cluster, node.name)
    before = states(cluster)
    for _ in range(ROUNDS):
        round_of_pods(cluster, nodes, PODS)
    wait_for_states(cluster, before)


def round_of_pods(cluster: Cluster, nodes: tuple[Node, Node], count: int) -> None:
    """Makes them and deletes them: all have a port of the host, and limits."""
    names = [f"many-{index}" for index in range(count)]
    made(
        cluster,
        *(
            objects.pod(
                name,
                nodes[index % 2].name,
                ["/agnhost", "pause"],
                annotations=objects.limits("100M"),
                ports=[{"containerPort": 80, "hostPort": 29000 + index}],
            )
            for index, name in enumerate(names)
        ),
    )
    cluster.delete("pod", *names)


def host_interface(cluster: Cluster, node: str, pod: Pod) -> str:
    """The other end of the pod's pair."""
    index = int(pod.shell("cat /sys/class/net/eth0/iflink"))
    links: list[Json] = json.loads(cluster.on(node, "ip", "-j", "link"))
    return next(str(link["ifname"]) for link in links if link["ifindex"] == index)


def bucket(cluster: Cluster, node: str, device: str) -> dict[str, Any]:
    """The device's token bucket."""
    qdiscs: list[Json] = json.loads(cluster.on(node, "tc", "-j", "qdisc", "show", "dev", device))
    return next(qdisc for qdisc in qdiscs if qdisc["kind"] == "tbf")


def transfer(sender: Pod, receiver: Pod, count: int) -> float:
    """Sends so many bytes, and returns how many seconds that took."""
    address = receiver.address
    with receiver.start(f"nc -l {PORT} | wc -c") as server:
        listening = f"cat /proc/net/tcp /proc/net/tcp6 | grep ':{PORT:04X} .* 0A '"
        until(lambda: receiver.shell(listening), "the receiver listens")
        began = time.monotonic()
        sender.shell(f"head -c {count} /dev/zero | nc -N {address} {PORT}")
        output, _ = server.communicate(timeout=600)
        took = time.monotonic() - began
    assert int(output) == count
    return took
