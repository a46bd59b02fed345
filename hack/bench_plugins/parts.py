"""The parts of the benchmark: what is called how often, and the rows that follow."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hack.bench_plugins import instructions
from hack.bench_plugins.contenders import (
    SETTLE_SECONDS,
    WORKERS,
    Chain,
    Contender,
    call_together,
    cycles,
    median,
    median_cpu,
    median_cycles,
    median_versions,
    median_wall,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.bench_plugins.contenders import Runs

FEWER_PODS, PODS = 100, 250
FEW_LEASES, MANY_LEASES, LEASES = 100, 10_000, 60_000
TOGETHER = 50
CROWD_SECONDS = 20  # until hundreds of new links have ended their first solicitations
INDEX = Path("/run/podwire/ipam")  # which is not there after a boot
POD = {"isDefaultGateway": True, "ipMasq": True}  # of a Kubernetes node


class Bench:
    """The programs to compare, and the table of the results."""

    def __init__(self, bundle: Path, peers: Path, rounds: int) -> None:
        self.bundle, self.podwire, self.peers, self.rounds = bundle, bundle / "podwire", peers, rounds
        self.rows: list[tuple[str, ...]] = []
        self.counts = ""

    def contender(self, name: str, number: int, **keys: object) -> Contender:
        """Returns a contender with its own bridge, subnet and leases."""
        program = self.podwire if name.startswith("podwire") else self.peers / "bridge"
        ipam = {"type": "host-local", "dataDir": f"/run/bench/{number}", "subnet": f"10.{number}.0.0/16"}
        conf = {"cniVersion": "1.0.0", "name": f"net{number}", "type": "bridge", "bridge": f"br{number}"}
        environment = {"CNI_PATH": str(self.peers), "PATH": os.environ["PATH"]}
        return Contender(name, str(program), conf | {"ipam": ipam} | keys, environment)

    def row(self, label: str, medians: dict[str, float], goal: float) -> None:
        """Adds a row: podwire compared with the best of the others."""
        ours = medians["podwire"]
        theirs = {name: value for name, value in medians.items() if name != "podwire"}
        best = min(theirs.values())
        others = ", ".join(f"{name} {value:.1f}" for name, value in theirs.items())
        self.rows.append((label, f"{ours:.1f}", others, f"{ours / best:.2f}", f"<= {goal}"))
        sys.stderr.write(f"{label}: {ours:.1f} against {others}: {ours / best:.2f} (to reach: {goal})\n")

    def version(self) -> None:
        ours, theirs = self.contender("podwire", 1), self.contender("bridge", 2)
        bare = theirs._replace(name="bare python3", program=sys.executable, arguments=("-I", "-S", "-c", "pass"))
        medians = median_versions([ours, theirs, bare], 3 * self.rounds)
        self.row("VERSION", {name: medians[name] for name in ("podwire", "bridge")}, 4)
        self.row("VERSION and an interpreter's start", {name: medians[name] for name in ("podwire", bare.name)}, 1.15)

    def attach(self) -> None:
        plain = [self.contender("podwire", 11), self.contender("bridge", 12)]
        self.add_rows("without masquerade", cycles(plain, self.rounds), (1.3, 1.15))
        self.add_rows("ipMasq", cycles(self.masquerading(20), self.rounds), (0.65, 0.42))

    def masquerading(self, number: int) -> list[Contender]:
        return [
            self.contender("podwire", number, ipMasq=True),
            self.contender("iptables", number + 1, ipMasq=True, ipMasqBackend="iptables"),
            self.contender("nftables", number + 2, ipMasq=True, ipMasqBackend="nftables"),
        ]

    def add_rows(self, label: str, runs: Runs, goals: tuple[float, float]) -> None:
        for index, verb in enumerate(("ADD", "DEL")):
            self.row(f"{verb}, {label}", {name: median_wall(both[index]) for name, both in runs.items()}, goals[index])

    def resources(self) -> None:
        """Measures CPU time and memory of one ADD."""
        plain = [self.contender("podwire", 71), self.contender("bridge", 72)]
        runs = cycles(plain, self.rounds)
        self.row("ADD, CPU", {name: median_cpu(both[0]) for name, both in runs.items()}, 2)
        peaks = {}
        for contender in plain:
            peaks[contender.name] = contender.peak("ADD", "pod0")
            contender.call("DEL", "pod0")
        self.row("ADD, peak memory (MiB)", peaks, 2)

    def crowd(self) -> None:
        """Measures the calls beside many pods, and how podwire scales: the same calls on a host without other pods."""
        contenders = self.masquerading(30)
        for contender in contenders:
            for number in range(1, PODS + 1):
                contender.call("ADD", f"pod{number}")
        time.sleep(CROWD_SECONDS)
        lone = self.contender("podwire alone", 40, ipMasq=True)._replace(host="lone")
        runs = cycles([lone, *contenders], self.rounds)
        scaling = {"podwire": runs["podwire"], lone.name: runs.pop(lone.name)}
        self.add_rows(f"ipMasq, {PODS} pods", runs, (0.8, 0.5))
        self.add_rows(f"scaling to {PODS} pods", scaling, (1.1, 1.1))
        for contender in contenders:
            for number in range(1, PODS + 1):
                contender.call("DEL", f"pod{number}")

    def leases(self) -> None:
        """Measures host-local alone, with few leases and in a full /16."""
        for leases, number, goal in ((FEW_LEASES, 51, 2.2), (LEASES, 53, 0.05)):
            runs = cycles(self.pools(number, leases), max(5, self.rounds // 3))
            self.add_rows(f"host-local, {leases} leases", runs, (goal, goal))

    def boot(self) -> None:
        """Measures host-local's first ADD after a boot, when podwire has no index of the leases yet."""
        for leases, number in ((MANY_LEASES, 55), (LEASES, 57)):
            contenders = self.pools(number, leases)
            times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
            for _ in range(5):
                for contender in contenders:
                    shutil.rmtree(INDEX, ignore_errors=True)
                    times[contender.name].append(contender.call("ADD", "pod0").wall)
                    contender.call("DEL", "pod0")
            medians = {name: median(walls) for name, walls in times.items()}
            self.row(f"host-local, first ADD after boot, {leases} leases", medians, 1.0)

    def pools(self, number: int, leases: int) -> list[Contender]:
        """Returns both allocators, each with so many leases of its own."""
        contenders = []
        for name, folder in (("podwire", self.bundle), ("host-local", self.peers)):
            contender = self.contender(name, number)._replace(program=str(folder / "host-local"))
            place = Path(f"/run/bench/{number}/net{number}")
            place.mkdir(parents=True)
            for value in range(2, leases + 2):
                lease = place / f"10.{number}.{value >> 8}.{value & 255}"
                lease.write_text(f"{value:064x}\r\neth0")
            (place / "last_reserved_ip.0").write_text(lease.name)
            contenders.append(contender)
            number += 1
        return contenders

    def together(self) -> None:
        """Measures many containers at a time."""
        self.together_rows("ipMasq", self.masquerading(60), (0.8, 0.5))

    def together_rows(self, label: str, contenders: Sequence[Contender | Chain], goals: tuple[float, float]) -> None:
        for verb, goal in zip(("ADD", "DEL"), goals, strict=True):
            walls = {}
            for contender in contenders:
                start = time.perf_counter()
                call_together(contender, verb, range(TOGETHER))
                walls[contender.name] = (time.perf_counter() - start) * 1000
                time.sleep(SETTLE_SECONDS)
            self.row(f"{TOGETHER} x {verb}, {WORKERS} at a time, {label}", walls, goal)

    def chain(self) -> None:
        """Measures the pod of a Kubernetes node (bridge, masquerade, host port, bandwidth), alone and beside many."""
        contenders = [self.node("podwire", 81), self.node("iptables", 82), self.node("nftables", 83)]
        runs = cycles(contenders, self.rounds)
        self.add_rows("chain", runs, (0.5, 0.3))
        self.row("pod cycle (ADD + DEL), 1 pod", median_cycles(runs, median_wall), 0.22)
        self.row("pod cycle, CPU", median_cycles(runs, median_cpu), 0.4)
        self.together_rows("chain", contenders, (0.4, 0.4))
        lone = self.node("podwire alone", 84)
        for before, pods, goal in ((0, FEWER_PODS, 0.25), (FEWER_PODS, PODS, 0.17)):
            for contender in contenders:
                call_together(contender, "ADD", range(before + 1, pods + 1))
            time.sleep(CROWD_SECONDS)
            medians = median_cycles(cycles([lone, *contenders], self.rounds), median_wall)
            scaling = {"podwire": medians["podwire"], lone.name: medians.pop(lone.name)}
            self.row(f"pod cycle, {pods} pods", medians, goal)
        self.row(f"pod cycle, scaling to {PODS} pods", scaling, 1.1)

    def names(self) -> None:
        """Measures the reference's list of plugins, unchanged, with podwire under their names."""
        ours = self.reference_chain("podwire", 86, self.bundle, "iptables")
        runs = cycles([ours, self.node("iptables", 87), self.node("nftables", 88)], self.rounds)
        self.add_rows("the reference's conflist", runs, (0.7, 0.5))
        self.row("pod cycle, the reference's conflist", median_cycles(runs, median_wall), 0.5)

    def kindnet(self) -> None:
        """Measures a routed pod with a host port against cni-kindnet, which keeps its state in SQLite."""
        program = os.environ.get("KINDNET", "")
        if not program:
            sys.stderr.write("cni-kindnet is not compared with: KINDNET names no program\n")
            return
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/var/lib"], check=True)
        capable = {"capabilities": {"portMappings": True}}
        ours = self.contender("podwire", 91, type="podwire", mode="routed", **capable)
        conf = {"cniVersion": "0.4.0", "name": "net92", "type": "cni-kindnet", "ranges": ["10.92.0.0/24"], **capable}
        theirs = Contender("cni-kindnet", program, conf, ours.environment)
        for host in ("node91", "node92"):
            add_namespace(host)
        runs = cycles([alone(ours, "node91"), alone(theirs, "node92")], self.rounds)
        self.row("ADD + DEL, routed, with a port", median_cycles(runs, median_wall), 1.0)
        self.row("ADD + DEL, routed, with a port, CPU", median_cycles(runs, median_cpu), 1.6)

    def before(self) -> None:
        """Measures an attachment against another bundle of podwire."""
        folder = os.environ.get("BEFORE", "")
        if not folder:
            sys.stderr.write("no other bundle is compared with: BEFORE names no folder\n")
            return
        earlier = self.contender("podwire before", 94)._replace(program=str(Path(folder) / "podwire"))
        both = [self.contender("podwire", 93), earlier]
        self.row("VERSION, before and now", median_versions(both, 3 * self.rounds), 1.02)
        self.add_rows("before and now", cycles(both, self.rounds), (1.02, 1.02))

    def instructions(self) -> None:
        self.counts = instructions.table([self.contender("podwire", 95), self.contender("bridge", 96)])

    def node(self, name: str, number: int) -> Chain:
        """Returns a chain on a host of its own, whose calls are not slowed by rules and links of other networks."""
        if not name.startswith("podwire"):
            return self.reference_chain(name, number, self.peers, name)
        add_namespace(f"node{number}")
        capable = {"portMappings": True, "bandwidth": True}
        return alone(self.contender(name, number, type="podwire", capabilities=capable, **POD), f"node{number}")

    def reference_chain(self, name: str, number: int, folder: Path, backend: str) -> Chain:
        """Returns the reference's list, on a host of its own. `folder`: that of the programs."""
        host = f"node{number}"
        add_namespace(host)
        bridge = self.contender(name, number, ipMasqBackend=backend, **POD)
        bridge = bridge._replace(program=str(folder / "bridge"), host=host)
        portmap = {"type": "portmap", "backend": backend, "capabilities": {"portMappings": True}}
        bandwidth = {"type": "bandwidth", "capabilities": {"bandwidth": True}}
        return Chain(name, [bridge, successor(bridge, portmap), successor(bridge, bandwidth)], {})

    def table(self) -> str:
        head = ("what", "podwire (ms)", "reference (ms)", "ratio to the best", "to reach")
        lines = [head, tuple("-" * len(word) for word in head), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def alone(plugin: Contender, host: str) -> Chain:
    return Chain(plugin.name, [plugin._replace(host=host)], {})


def successor(first: Contender, keys: dict[str, Any]) -> Contender:
    """Returns another plugin of the same network."""
    conf = {key: first.conf[key] for key in ("cniVersion", "name")}
    return first._replace(program=str(Path(first.program).with_name(keys["type"])), conf=conf | keys)


def add_namespace(name: str) -> None:
    subprocess.run(["ip", "netns", "add", name], check=True)
