"""Measures one agent on one node whose etcd is full of peers, and prints the figures as JSON.

usage: python -m hack.bench_agent.node PROGRAM [PART...]

It is the first process of a machine of its own (namespaces of processes, network and mounts): whatever it starts and
writes ends with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from hack.bench_agent.etcd import PORT, Etcd, Peer, is_healthy, log_tail
from hack.bench_agent.mirror import Mirror

PEERS, FEW_PEERS = 5_000, 100
SINGLE, TOGETHER, TIMES = 50, 500, 3  # changes: one after the other; at once, and how often
MOVED, GONE = "moved", "gone"
LOST = 100  # of each: routes, neighbours, FDB entries
IDLE_SECONDS, QUIET_SECONDS, LIMIT_SECONDS = 20, 3, 120
END_SECONDS = 10  # until an agent has ended after SIGTERM
BULK_PAUSE = 0.002  # between two looks at many events

SUBNET_FILE, LOG = Path("/run/flannel/subnet.env"), Path("/run/agent.log")
HEALTH_PORT = 8081
DEVICE = "flannel.1"


class Node:
    """A node with an etcd and an agent."""

    def __init__(self, program: str, peers: int) -> None:
        self.command = [program, "--iface=uplink", "--ip-masq", f"--subnet-file={SUBNET_FILE}"]
        self.command += [f"--etcd-endpoints=http://127.0.0.1:{PORT}"]
        self.command += ["--healthz-ip=127.0.0.1", f"--healthz-port={HEALTH_PORT}"]
        self.cleans = Path(program).name == "podwired"  # flanneld leaves what peers had that went while it was down
        self.figures: dict[str, list[float]] = {}
        self.etcd = Etcd()
        self.etcd.fill([Peer(number) for number in range(peers)])
        self.etcd.grant([Peer(number) for number in range(peers, peers + TOGETHER)])
        self.mirror = Mirror()
        self.agent: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Starts the agent and returns the time of that."""
        with LOG.open("ab") as log:
            began = time.perf_counter()
            self.agent = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return began

    def stop(self) -> None:
        """Ends the agent, by SIGKILL where SIGTERM does not: flanneld was seen to stay after it."""
        assert self.agent is not None
        self.agent.terminate()
        try:
            self.agent.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.agent.kill()
            self.agent.wait()

    def until_whole(self, pause: float = 0.0) -> float:
        """Waits until the kernel has all desired entries, and returns that time."""
        limit = time.perf_counter() + LIMIT_SECONDS
        while self.mirror.wrong:
            self.mirror.look(pause)
            self.check(limit)
        return time.perf_counter()

    def check(self, limit: float) -> None:
        if self.agent is not None and self.agent.poll() is not None:
            self.give_up(f"the agent ended with {self.agent.returncode}")
        if time.perf_counter() > limit:
            self.give_up(f"it took more than {LIMIT_SECONDS} s")

    def verify(self) -> None:
        """Compares dumps of the kernel's tables: events do not show that a change lasted."""
        self.mirror.reload()
        if self.mirror.wrong:
            self.give_up("the change did not last")

    def give_up(self, reason: str) -> NoReturn:
        raise SystemExit(f"{reason}; {self.mirror.fault()}; the end of the agent's log:\n{log_tail(LOG)}")

    def note(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)

    def agents(self) -> list[int]:
        """Returns the agent's processes: all except this one and etcd."""
        others = (os.getpid(), self.etcd.process.pid)
        return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) not in others]

    def until_ready(self) -> None:
        limit = time.perf_counter() + LIMIT_SECONDS
        while not is_healthy(HEALTH_PORT, "/readyz"):
            self.mirror.look(BULK_PAUSE)
            self.check(limit)

    def until_quiet(self) -> None:
        """Waits until no event has come for some seconds."""
        limit = time.perf_counter() + LIMIT_SECONDS
        last, events = time.perf_counter(), self.mirror.events
        while time.perf_counter() < last + QUIET_SECONDS:
            self.mirror.look(BULK_PAUSE)
            if self.mirror.events != events:
                last, events = time.perf_counter(), self.mirror.events
            self.check(limit)

    def sync(self) -> None:
        """Measures a cold sync of all leases."""
        for number in range(PEERS):
            self.mirror.want(Peer(number).facts())
        start = self.start()
        limit, written = start + LIMIT_SECONDS, 0.0
        synced = 0.0
        while not (synced and written):
            self.mirror.look(BULK_PAUSE)
            now = time.perf_counter()
            synced = synced or (0.0 if self.mirror.wrong else now)
            written = written or (now if SUBNET_FILE.exists() else 0.0)
            self.check(limit)
        self.note("sync", synced - start)
        self.note("subnet.env", written - start)
        self.note("cpu", self.cpu_seconds())
        self.note("memory", self.peak())
        self.verify()
        self.until_quiet()

    def few(self) -> None:
        """Measures a cold start until pods can be attached."""
        start = self.start()
        while not SUBNET_FILE.exists():
            self.mirror.look()
            self.check(start + LIMIT_SECONDS)
        self.note("few", time.perf_counter() - start)

    def change(self) -> None:
        """Measures changes of one peer, one after the other."""
        for name, peers in self.steps(0, SINGLE):
            for peer in peers:
                path, body = ("deleterange", {"key": peer.key}) if name == GONE else ("put", peer.put())
                self.expect(name, [peer])
                began = time.perf_counter()
                self.etcd.send(f"kv/{path}", body)
                self.note(name, (self.until_whole() - began) * 1000)
                self.etcd.answer()
        self.verify()

    def changes(self) -> None:
        """Measures changes of many peers; others move in each round."""
        for first in range(SINGLE, SINGLE + TIMES * TOGETHER, TOGETHER):
            for name, peers in self.steps(first, TOGETHER):
                self.expect(name, peers)
                began = time.perf_counter()
                (self.etcd.delete_all if name == GONE else self.etcd.put_all)(peers)
                self.note(f"{TOGETHER} {name}", (self.until_whole(BULK_PAUSE) - began) * 1000)
                self.verify()

    def steps(self, first: int, count: int) -> list[tuple[str, list[Peer]]]:
        """Returns new peers, peers from `first` on that move, and the new ones again, which go."""
        new = [Peer(number) for number in range(PEERS, PEERS + count)]
        return [
            ("added", new),
            (MOVED, [Peer(number, moved=True) for number in range(first, first + count)]),
            (GONE, new),
        ]

    def expect(self, name: str, peers: list[Peer]) -> None:
        for peer in peers:
            if name == MOVED:
                self.mirror.ignore(peer._replace(moved=False).facts())
            (self.mirror.refuse if name == GONE else self.mirror.want)(peer.facts())

    def restart(self) -> None:
        """Measures a restart without differences, and one after entries and a peer were removed."""
        self.until_quiet()
        events = self.mirror.events
        self.stop()
        self.start()
        self.until_ready()
        self.until_quiet()
        self.note("events", self.mirror.events - events)
        self.stop()
        self.damage()
        gone = Peer(PEERS - 1)
        self.etcd.ask("kv/deleterange", {"key": gone.key})
        if self.cleans:
            self.mirror.refuse(gone.facts())
        else:
            self.mirror.ignore(gone.facts())
        self.mirror.look()
        assert len(self.mirror.wrong) >= 3 * LOST
        began = self.start()
        self.note("heal", self.until_whole(BULK_PAUSE) - began)
        self.verify()

    def damage(self) -> None:
        first = PEERS // 2
        routes, neighbours, entries = (
            [Peer(number) for number in range(start, start + LOST)] for start in range(first, first + 3 * LOST, LOST)
        )
        lines = [f"route del {peer.subnet}/24 dev {DEVICE}" for peer in routes]
        lines += [f"neigh del {peer.subnet} dev {DEVICE}" for peer in neighbours]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)
        lines = [f"fdb del {peer.mac} dev {DEVICE} dst {peer.ip} self" for peer in entries]
        subprocess.run(["bridge", "-batch", "-"], input="\n".join(lines).encode(), check=True)

    def idle(self) -> None:
        self.until_quiet()
        before = self.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        self.note("idle", (self.cpu_seconds() - before) * 1000)

    def cpu_seconds(self) -> float:
        """Returns the CPU seconds of the agent, by its own clock as /proc counts in ticks of 10 ms, and of its children
        that have ended.
        """
        total = 0.0
        for number in self.agents():
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
            total += time.clock_gettime(~number << 3 | 2)  # clock_getcpuclockid(3)
        return total

    def peak(self) -> float:
        """Returns the peak resident MiB."""
        lines = [line for number in self.agents() for line in Path(f"/proc/{number}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def make_machine() -> None:
    """Mounts an empty /run, and adds an uplink without a peer, with the default route."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    uplink = ["link add uplink type veth peer name wire", "address add 192.0.2.1/24 dev uplink"]
    up = [f"link set {name} up" for name in ("lo", "wire", "uplink")]
    lines = [*uplink, *up, "route add default via 192.0.2.254"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)


def main() -> None:
    program, *parts = sys.argv[1:]
    os.chdir("/")
    make_machine()
    if parts == ["few"]:
        node = Node(program, FEW_PEERS)
    else:
        node = Node(program, PEERS)
        node.sync()  # the others need it
    for part in parts:
        if part != "sync":
            getattr(node, part)()
    sys.stdout.write(json.dumps(node.figures))


if __name__ == "__main__":
    main()
