"""NetworkPolicy from a pod's first packet, by the built programs: none passes before its verdict, none is lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from tests.echo import leave_all_but
from tests.forkserver import enter_net
from tests.system.nodes import MASQUERADE
from tests.system.plugins import Attachment, RefusedError, call
from tests.traffic import NOBODY, Target, ask_each, listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.machine import Machine, Pod
    from tests.system.nodes import Cluster

FOLDER = "/run/policies"
FLAGS = (MASQUERADE, "--network-policy", f"--policy-files={FOLDER}", "--node-name=one", "--v=1")
PORT = 8080
PODS = 40
LOST = 60_000  # elements, whose notifications do not fit into podwired's queue (4 MiB)
DELEGATE = {"type": "podwire", "isDefaultGateway": True, "hairpinMode": True}
PAUSE = 0.0005  # of a flood
CLOSED = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {matchLabels: {app: new}}, policyTypes: [Ingress, Egress]}
"""
TO_TARGET = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-target, namespace: shop}
spec:
  podSelector: {matchLabels: {app: new}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: target}}}]}]
"""
COUNTER = (
    "table inet seen {\n counter arrived { }\n counter sent { }\n"
    + "".join(
        f" chain {hook} {{ type filter hook {hook} priority 0; th dport {PORT} counter name {name}; }}\n"
        for hook, name in (("input", "arrived"), ("output", "sent"))
    )
    + "}\n"
)


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


class New(NamedTuple):
    """A pod that ADD has attached."""

    pod: Pod
    attachment: Attachment
    address: str
    config: dict[str, object]


class Shop:
    """A node on which the files name the pods target and new-0, new-1, ..., and any other has no labels."""

    def __init__(self, cluster: Cluster, podwired: Path) -> None:
        cluster.configure()
        (self.node,) = cluster.add("one")
        self.cluster, self.podwired = cluster, podwired
        self.node.run("mkdir", FOLDER)
        names = {"target": "target"} | {f"new-{number}": "new" for number in range(PODS)}
        self.write(
            "pods.yaml",
            yaml.safe_dump_all(
                [
                    {
                        "apiVersion": "v1",
                        "kind": "Pod",
                        "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
                        "spec": {"containers": [{"name": "it"}]},
                    }
                    for name, app in names.items()
                ]
            ),
        )
        self.start()
        self.target = self.attach("target")
        listen(self.target.pod, "target", PORT)

    def start(self, *flags: str) -> None:
        self.node.start_agent(self.podwired, *FLAGS, *flags)
        self.cluster.until(lambda: "NetworkPolicy is enforced" in self.last_log(), "policies are enforced")

    def last_log(self) -> str:
        """Returns what the agent has logged since it was started last."""
        assert self.node.agent
        return self.node.agent.log.rpartition("podwired 0")[2]

    def write(self, name: str, text: str) -> None:
        self.node.run("sh", "-c", f"cat >{FOLDER}/.new && mv {FOLDER}/.new {FOLDER}/{name}", stdin=text)

    def apply(self, *policies: str) -> None:
        """Puts policies in the place of those before, and waits until they are in force."""
        self.write("policies.yaml", "---".join(policies) or "{apiVersion: v1, kind: List, items: []}")

        def known() -> bool:
            return f"podwired_policies {float(len(policies))}" in self.node.probe("metrics")[1]

        self.cluster.until(known, "the policies are known")

    def prepare(self, name: str) -> Pod:
        """Adds a namespace that counts what comes and goes before there is an interface."""
        pod = self.node.pod(name)
        self.node.run("ip", "netns", "exec", name, "nft", "-f", "-", stdin=COUNTER)
        return pod

    def attach(self, name: str, wait: int = 20, ip: str = "", pod: Pod | None = None) -> New:
        """Calls ADD as a runtime does for a pod of Kubernetes."""
        pod = pod or self.prepare(name)
        config: dict[str, object] = {
            "cniVersion": "1.0.0",
            "name": "cbr0",
            "type": "flannel",
            "delegate": {**DELEGATE, "policyWait": wait},
        }
        if ip:
            config |= {"capabilities": {"ips": True}, "runtimeConfig": {"ips": [ip]}}
        arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name};K8S_POD_UID=u"
        attachment = Attachment(f"sandbox-of-{name}", pod.path, arguments=arguments)
        answer = call(self.node, self.cluster.plugins / "flannel", "ADD", config, attachment)
        return New(pod, attachment, answer["ips"][0]["address"].partition("/")[0], config)

    def detach(self, new: New) -> None:
        call(self.node, self.cluster.plugins / "flannel", "DEL", new.config, new.attachment)

    def flood(self, pod: Pod, *hosts: str, protocol: str = "tcp") -> int:
        """Sends from a pod without end, by new sockets, though it may have no interface yet; returns the process ID."""
        return self.node.call(_flood, pod.path, hosts, protocol)

    def end_flood(self, sender: int) -> None:
        self.node.call(os.kill, sender, signal.SIGKILL)

    def counted(self, pod: Pod) -> dict[str, int]:
        """Returns how many packets for the port have arrived in a pod, and were sent by it."""
        listed = json.loads(pod.run("nft", "-j", "list", "counters").stdout)["nftables"]
        return {item["counter"]["name"]: item["counter"]["packets"] for item in listed if "counter" in item}

    def elements(self) -> str:
        maps = "ingress4", "egress4"
        return "".join([self.node.run("nft", "list", "map", "inet", "podwire-policy", name).stdout for name in maps])


def _flood(netns: str, hosts: tuple[str, ...], protocol: str) -> int:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM

    def send(host: str) -> None:
        with socket.socket(socket.AF_INET, kind) as sender:
            sender.setblocking(False)
            if sender.connect_ex((host, PORT)) == 0 and protocol == "udp":
                sender.send(b"?")

    return _repeat(netns, send, hosts)


def _flood_by_one_socket(netns: str, host: str) -> int:
    senders: list[socket.socket] = []

    def send(host: str) -> None:
        if not senders:
            senders.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        senders[0].sendto(b"?", (host, PORT))

    return _repeat(netns, send, (host,))


def _repeat(netns: str, send: Callable[[str], None], hosts: tuple[str, ...]) -> int:
    """Sends to the hosts in turn, in a child that ends with the machine; returns its process ID."""
    child = os.fork()
    if child:
        return child
    try:
        leave_all_but(set())
        enter_net(netns)
        for host in itertools.cycle(hosts):
            with suppress(OSError):
                send(host)
            time.sleep(PAUSE)
    finally:
        os._exit(1)


@pytest.fixture
def shop(cluster: Cluster, podwired: Path) -> Shop:
    return Shop(cluster, podwired)


def test_no_packet_of_a_new_pod_passes_before_its_verdict(shop: Shop) -> None:
    """The policy is older than the pods. Each sends SYNs before it has an interface, and another pod sends to them."""
    shop.apply(CLOSED)
    other = shop.attach("other")
    subnet = shop.target.address.rpartition(".")[0]
    hosts = {f"{subnet}.{number}" for number in range(2, PODS + 5)} - {shop.target.address, other.address}
    shop.flood(other.pod, *sorted(hosts), protocol="udp")
    news = []
    for number in range(PODS - 10):
        pod = shop.prepare(f"new-{number}")
        sender = shop.flood(pod, shop.target.address)
        news.append(shop.attach(f"new-{number}", pod=pod))
        shop.cluster.until(lambda pod=pod: shop.counted(pod)["sent"] > 0, "it has sent")  # type: ignore[misc]
        shop.end_flood(sender)
    sent = [shop.counted(new.pod)["sent"] for new in news]
    assert min(sent) > 0
    assert shop.counted(other.pod)["sent"] > PODS
    assert max(shop.counted(new.pod)["arrived"] for new in news) == 0
    assert shop.counted(shop.target.pod)["arrived"] == 0
    shop.cluster.until(lambda: "pending" not in shop.elements(), "all are moved")

    _, metrics = shop.node.probe("metrics")
    assert f"podwired_policy_pod_start_seconds_count {PODS - 8}.0" in metrics
    assert "podwired_policy_healed_total 0.0" in metrics
    for new in news[:5]:
        shop.detach(new)
    shop.cluster.until(lambda: not any(f"{new.address} :" in shop.elements() for new in news[:5]), "no element is left")
    assert "podwired_policy_healed_total 0.0" in shop.node.probe("metrics")[1]


def test_the_first_packet_after_add_passes_where_it_is_allowed(shop: Shop) -> None:
    shop.apply(TO_TARGET)
    retransmissions = 0
    for number in range(10):
        new = shop.attach(f"new-{number}")
        (answer,) = ask_each(new.pod, [Target("tcp", shop.target.address, PORT)], 10)
        assert answer == ("target", new.address)
        statistics = new.pod.run("cat", "/proc/net/netstat").stdout.splitlines()
        names, values = (line.split() for line in statistics[:2])
        retransmissions += int(values[names.index("TCPSynRetrans")])
    assert retransmissions == 0
    assert shop.counted(shop.target.pod)["arrived"] >= 10


def test_new_pods_stay_closed_while_the_agent_is_away_and_meet_their_policies_when_it_is_back(shop: Shop) -> None:
    shop.apply(CLOSED)
    old = shop.attach("other")
    shop.cluster.until(lambda: "pending" not in shop.elements(), "the pod is no longer new")
    assert shop.node.stop_agent("KILL") == -9
    senders = []
    # What a pod without policies has sent may wait for ARP, and arrive once podwired is back: it goes to another pod.
    for name, host in (("new-0", shop.target), ("free", old), ("new-1", shop.target)):
        pod = shop.prepare(name)
        senders.append(shop.flood(pod, host.address))
        shop.attach(name, wait=0, pod=pod)
    before = shop.elements()
    assert before.count("pending-in") == before.count("pending-out") == 3
    assert shop.counted(shop.target.pod)["arrived"] == shop.counted(old.pod)["arrived"] == 0
    (answer,) = ask_each(old.pod, [Target("tcp", shop.target.address, PORT)])
    assert answer.name == "target"
    arrived = shop.counted(shop.target.pod)["arrived"]

    status = {"cniVersion": "1.1.0", "name": "cbr0", "type": "flannel", "delegate": DELEGATE}
    shop.node.run("sh", "-c", "touch -d '1 minute ago' /run/podwire/pods-*/*")
    with pytest.raises(RefusedError, match="podwired is not running, so new pods stay closed: shop/"):
        call(shop.node, shop.cluster.plugins / "flannel", "STATUS", status, Attachment())

    shop.start()
    shop.cluster.until(lambda: "pending" not in shop.elements(), "all have a class")
    call(shop.node, shop.cluster.plugins / "flannel", "STATUS", status, Attachment())
    time.sleep(10 * PAUSE)
    assert shop.counted(shop.target.pod)["arrived"] == arrived
    free = shop.node.pods["free"]
    (answer,) = ask_each(free, [Target("tcp", shop.target.address, PORT)])
    assert answer.name == "target"
    for sender in senders:
        shop.end_flood(sender)


def test_what_the_kernel_could_not_tell_is_found_by_comparison(shop: Shop) -> None:
    """The kernel drops notifications for who does not read them (ENOBUFS)."""
    shop.apply(CLOSED, TO_TARGET)
    gone = shop.attach("new-9")
    shop.cluster.until(lambda: "pending" not in shop.elements(), "the pod is no longer new")
    assert shop.node.agent
    shop.node.agent.signal("STOP")
    elements = ", ".join(map(str, range(LOST)))
    many = f"table inet elsewhere {{ set many {{ type mark; elements = {{ {elements} }}; }}\n }}"
    shop.node.run("nft", "-f", "-", stdin=many)
    new = shop.attach("new-0", wait=0)
    shop.detach(gone)
    assert gone.address in shop.elements()
    shop.node.agent.signal("CONT")
    lost = "more has changed in nftables than the kernel could report"
    shop.cluster.until(lambda: lost in shop.last_log(), "the loss is noticed")
    shop.cluster.until(lambda: "pending" not in shop.elements(), "the new pod has its class")
    shop.cluster.until(lambda: f"{gone.address} " not in shop.elements(), "the other one is gone")
    (answer,) = ask_each(new.pod, [Target("tcp", shop.target.address, PORT)], 10)
    assert answer == ("target", new.address)
    (answer,) = ask_each(shop.target.pod, [Target("tcp", new.address, PORT)])
    assert answer.name == NOBODY


def test_a_udp_flow_to_a_pod_that_is_gone_does_not_reach_the_next_one(shop: Shop) -> None:
    shop.apply(CLOSED)
    client, old = shop.attach("client"), shop.attach("old")
    listen(old.pod, "old", PORT)
    (answer,) = ask_each(client.pod, [Target("udp", old.address, PORT)])
    assert answer.name == "old"
    sender = shop.node.call(_flood_by_one_socket, client.pod.path, old.address)
    shop.cluster.until(lambda: shop.counted(old.pod)["arrived"] > 10, "the flow is established")
    shop.detach(old)
    assert shop.node.stop_agent("KILL") == -9
    shop.start()

    new = shop.attach("new-0", ip=old.address)
    assert new.address == old.address
    sent = shop.counted(client.pod)["sent"]
    shop.cluster.until(lambda: shop.counted(client.pod)["sent"] > sent + 20, "the client goes on")
    assert shop.counted(new.pod)["arrived"] == 0
    shop.end_flood(sender)
    (answer,) = ask_each(client.pod, [Target("udp", new.address, PORT)], 0.5)
    assert answer.name == NOBODY


def test_unknown_pods_may_be_open(shop: Shop) -> None:
    shop.apply(CLOSED)
    shop.node.stop_agent()
    shop.start("--policy-unknown=open")
    assert shop.node.stop_agent("KILL") == -9
    new = shop.attach("new-0", wait=0)
    (answer,) = ask_each(new.pod, [Target("tcp", shop.target.address, PORT)])
    assert answer.name == "target"
    shop.start("--policy-unknown=open")
    shop.cluster.until(lambda: "pending" not in shop.elements(), "it has its class")
    (answer,) = ask_each(new.pod, [Target("tcp", shop.target.address, PORT)], 0.5)
    assert answer.name == NOBODY
