"""Measures one part of one agent on one node of a large cluster, and prints the figures as JSON.

usage: python -m hack.bench_policy.node PART AGENT TRAFFIC [whole]

With `whole` the CPU time of a connection is that of the whole machine.

It is the first process of a machine of its own (namespaces of processes, network and mounts): whatever it starts and
writes ends with it.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hack.bench_policy.api import PORT
from hack.bench_policy.attaching import WITH, WITHOUT, Attaching
from hack.bench_policy.objects import NODE, SPACE, TEST, World, pod, policy
from hack.bench_policy.pods import Pods, make_machine, measure

if TYPE_CHECKING:
    from hack.bench_policy.objects import Json

WORLDS = {
    "few": World(1_000, 1_000, 3),
    "add": World(1_000, 1_000, 3),
    "many": World(1_000, 1_000, 100),
    "first": World(1_000, 100, 0),
    "scale": World(100_000, 10_000, 3),
}
SAMPLES, SAMPLE_SECONDS = 5, 2.0
CHANGES = 20  # of a policy that is the first of its pods
RHYTHM = 0.37  # seconds
ADDS = 25
IDLE_SECONDS, QUIET_SECONDS, LIMIT_SECONDS, END_SECONDS = 20, 3, 1800, 10
HEALTH_PORT = 8081
KUBECONFIG, NETWORK, LOG = Path("/run/kubeconfig"), Path("/run/network.json"), Path("/run/agent.log")
API_LOG = Path("/run/api.log")

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_NETFILTER, NFNLGRP_NFTABLES = 270, 1, 12, 7
NEWGEN = 10 << 8 | 15  # the number of a transaction, which comes with each
HEADER = struct.Struct("=IHHII")
_CONFIG = {"clusters": [{"name": "one", "cluster": {"server": f"http://127.0.0.1:{PORT}"}}],
           "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
           "users": [{"name": "one", "user": {}}],
           "apiVersion": "v1", "kind": "Config", "current-context": "one"}  # fmt: skip


class KernelEvents:
    """A counter of the changes to nftables that the kernel tells of."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)

    def take(self) -> int:
        count = 0
        try:
            while True:
                data, start = self._socket.recv(1 << 20, socket.MSG_DONTWAIT), 0
                while start < len(data):
                    length, kind, *_ = HEADER.unpack_from(data, start)
                    count += kind != NEWGEN
                    start += (length + 3) & ~3
        except BlockingIOError:
            return count


class Node:
    """A node with two pods, the API of its cluster, and an agent."""

    def __init__(self, agent: str, traffic: str, world: World, *, whole: bool) -> None:
        self.figures: dict[str, list[float]] = {}
        self.pods, self.traffic, self.whole = Pods(), Path(traffic), whole
        KUBECONFIG.write_text(json.dumps(_CONFIG))
        NETWORK.write_text(json.dumps({"Network": "10.0.0.0/8", "Backend": {"Type": "host-gw"}}))
        self.command = command_of(agent)
        self.podwire = Path(agent).with_name("podwire")
        with API_LOG.open("wb") as log:
            numbers = [str(number) for number in world]
            self.api = subprocess.Popen(
                [sys.executable, "-B", "-m", "hack.bench_policy.api", *numbers], stdout=log, stderr=log
            )
        self._limit = time.monotonic() + LIMIT_SECONDS
        while not is_answering(PORT, "GET", "/api/v1/namespaces?limit=1"):
            self.pause(0.2)
        self.agent = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        with LOG.open("ab") as log:
            return subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        self.agent.terminate()
        try:
            self.agent.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.agent.kill()
            self.agent.wait()

    def pause(self, seconds: float) -> None:
        for process, log in ((self.api, API_LOG), (getattr(self, "agent", None), LOG)):
            if process is not None and process.poll() is not None:
                self.give_up(f"{process.args!r} ended with {process.returncode}", log)
        if time.monotonic() > self._limit:
            self.give_up(f"it took more than {LIMIT_SECONDS} s", LOG)
        time.sleep(seconds)

    def give_up(self, reason: str, log: Path) -> NoReturn:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
        raise SystemExit(f"bench: {reason}; the end of {log}:\n{last}")

    def note(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)

    def cpu_seconds(self) -> float:
        return time.clock_gettime(~self.agent.pid << 3 | 2)  # clock_getcpuclockid(3)

    def memory(self, key: str) -> float:
        """Returns MiB of the agent: VmRSS now, VmHWM at the peak."""
        lines = Path(f"/proc/{self.agent.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024

    def until_in_force(self) -> None:
        while not self.pods.is_denied():
            self.pause(0.02)

    def change(self, kind: str, item: Json, plural: str = "networkpolicies") -> None:
        if not is_answering(PORT, "POST", "/change", json.dumps([[plural, kind, item]])):
            self.give_up("the API did not take a change", API_LOG)

    # Parts

    def few(self) -> None:
        """Measures connections and round trips of pods that three policies select, then a restart."""
        self.until_in_force()
        self.pause(QUIET_SECONDS)
        self.cost("connections", "few")
        self.cost("trips", "trips")
        events = KernelEvents()
        self.stop()
        self.agent = self.start()
        self.pause(QUIET_SECONDS)
        self.until_in_force()
        self.pause(QUIET_SECONDS)
        self.note("restart", events.take())

    def many(self) -> None:
        """Measures connections of pods that a hundred policies select."""
        self.until_in_force()
        self.pause(QUIET_SECONDS)
        self.cost("connections", "many")

    def cost(self, mode: str, name: str) -> None:
        for _ in range(SAMPLES):
            agent, machine = self.cpu_seconds(), busy_seconds()
            count, each = measure(self.traffic, mode, SAMPLE_SECONDS)
            each = (busy_seconds() - machine) / count if self.whole else each + (self.cpu_seconds() - agent) / count
            self.note(name, each * 1e6)

    def first(self) -> None:
        """Measures how soon the first policy that selects a pod is in force."""
        while not is_answering(HEALTH_PORT, "GET", "/metrics"):
            self.pause(0.1)
        self.pause(QUIET_SECONDS)
        item = policy("late", SPACE, TEST, TEST)
        for number in range(CHANGES):
            self.pause(number * RHYTHM % 1)  # an agent may have a rhythm of its own
            began = time.perf_counter()
            self.change("ADDED", item)
            self.note("first", (self.pods.probe_until(denied=True) - began) * 1000)
            self.change("DELETED", item)
            self.pods.probe_until(denied=False)

    def scale(self) -> None:
        """Measures a start in a large cluster, then nothing."""
        began = time.perf_counter()
        self.until_in_force()
        self.note("seconds", time.perf_counter() - began)
        self.note("cpu", self.cpu_seconds())
        self.pause(QUIET_SECONDS)
        self.note("memory", self.memory("VmRSS"))
        self.note("peak", self.memory("VmHWM"))
        self.pause(QUIET_SECONDS)
        before = self.cpu_seconds()
        self.pause(IDLE_SECONDS)
        self.note("idle", (self.cpu_seconds() - before) * 1000)

    def add(self) -> None:
        """Measures ADDs of pods that three policies select, and of the same pods on a host without policies."""
        self.until_in_force()
        attaching = Attaching(self.podwire)
        for number in range(ADDS):
            name = f"new{number}"
            self.change("ADDED", pod(name, SPACE, NODE, "", TEST), "pods")
            self.pause(0.2)  # the API tells of a pod before its runtime attaches it
            times = {host: attaching.add(host, name) for host in (WITH, WITHOUT)}
            if number:  # the first one creates what is shared
                self.note("more", times[WITH] - times[WITHOUT])
                self.note("without", times[WITHOUT])


def busy_seconds() -> float:
    """Returns the CPU seconds of the whole machine: user, nice, system, irq, softirq (proc_stat(5))."""
    ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks[:3]) + sum(ticks[5:7])) / os.sysconf("SC_CLK_TCK")


def command_of(agent: str) -> list[str]:
    if Path(agent).name == "podwired":
        api = ["--kube-subnet-mgr", f"--kubeconfig-file={KUBECONFIG}", f"--net-config-path={NETWORK}"]
        health = ["--healthz-ip=127.0.0.1", f"--healthz-port={HEALTH_PORT}"]
        return [agent, "--network-policy", f"--node-name={NODE}", "--iface=uplink", *api, *health]
    address = f"--metrics-bind-address=127.0.0.1:{HEALTH_PORT}"
    return [agent, f"--kubeconfig={KUBECONFIG}", f"--hostname-override={NODE}", "--disable-nri", "--fail-open=false",
            address]  # fmt: skip


def is_answering(port: int, method: str, path: str, body: str | None = None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> None:
    part, agent, traffic, *options = sys.argv[1:]
    make_machine()
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)  # each probe has a socket
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    os.environ["NODE_NAME"] = NODE
    node = Node(agent, traffic, WORLDS[part], whole=options == ["whole"])
    getattr(node, part)()
    sys.stdout.write(json.dumps(node.figures))


if __name__ == "__main__":
    main()
