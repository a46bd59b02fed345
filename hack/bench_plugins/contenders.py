"""Programs to compare, each with its configuration, and calls of them as whole processes."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

WORKERS = 8  # calls at a time
SETTLE_SECONDS = 0.3
RATE, BURST = 100_000_000, 8_000_000  # bits, so that a burst lasts 80 ms
FIRST_PORT = 20_000


# Until exec, a process has the memory of its parent, which counts in its peak. So it is measured as the child of a
# small process, whose few MiB are the least that can be measured.
SMALL_PARENT = """
import posix, sys
child = posix.posix_spawn(sys.argv[1], sys.argv[1:2], posix.environ)
_, status, usage = posix.wait4(child, 0)
posix.write(2, b"%d" % usage.ru_maxrss)
posix._exit(status and 1)
"""


class Run(NamedTuple):
    """The wall and CPU milliseconds of a process and its children."""

    wall: float
    cpu: float


Runs = dict[str, tuple[list[Run], list[Run]]]  # of every contender its ADDs and its DELs, in order


class Contender(NamedTuple):
    """A program and the configuration that it is measured with."""

    name: str
    program: str
    conf: dict[str, Any]
    environment: dict[str, str]
    host: str = "host"
    arguments: tuple[str, ...] = ()

    def call_environment(self, command: str, pod: str) -> dict[str, str]:
        return self.environment | {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": self.conf["name"].replace("net", "eth"),  # all contenders attach the same pods
        }

    def call(self, command: str, pod: str) -> Run:
        return self.ask(command, pod, {})[0]

    def ask(self, command: str, pod: str, keys: dict[str, Any]) -> tuple[Run, bytes]:
        """Runs one call and returns its result; the keys are what a runtime adds to the configuration."""
        environment = self.call_environment(command, pod)
        read, write = os.pipe()
        os.write(write, json.dumps(self.conf | keys).encode())
        os.close(write)
        answers, output = os.pipe()  # holds 64 KiB, so that nobody waits for us to read
        actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, output, 1)]
        enter(self.host)
        start = time.perf_counter()
        child = os.posix_spawn(self.program, [self.program, *self.arguments], environment, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
        wall = (time.perf_counter() - start) * 1000
        os.close(read)
        os.close(output)
        with open(answers, "rb") as pipe:
            answer = pipe.read()
        if status:
            raise SystemExit(f"{self.name}: {command} {pod} failed: {answer.decode()}")
        return Run(wall, (usage.ru_utime + usage.ru_stime) * 1000), answer

    def peak(self, command: str, pod: str) -> float:
        """Returns the peak resident MiB of one call."""
        environment = self.call_environment(command, pod)
        arguments = [sys.executable, "-I", "-S", "-c", SMALL_PARENT, self.program]
        ended = subprocess.run(
            arguments, input=json.dumps(self.conf).encode(), env=environment, capture_output=True, check=True
        )
        return int(ended.stderr.splitlines()[-1]) / 1024


class Chain(NamedTuple):
    """Plugins called as a runtime calls a list: each gets the result of the one before, DEL runs in reverse order.

    Only the processes count, not what the runtime does between them.
    """

    name: str
    plugins: list[Contender]
    results: dict[str, Any]  # of the attached pods, for the next plugin and for DEL

    def call(self, command: str, pod: str) -> Run:
        runs = []
        for plugin in self.plugins if command == "ADD" else self.plugins[::-1]:
            run, answer = plugin.ask(command, pod, self.keys(plugin, pod))
            runs.append(run)
            if command == "ADD":
                self.results[pod] = json.loads(answer)
        if command == "DEL":
            del self.results[pod]
        return total(runs)

    def keys(self, plugin: Contender, pod: str) -> dict[str, Any]:
        """Passes the runtime's settings of a pod to the plugins that have the capability."""
        port = FIRST_PORT + int(pod.removeprefix("pod"))
        wanted = {
            "portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST},
        }
        capable = plugin.conf.get("capabilities", {})
        keys = {"runtimeConfig": {key: value for key, value in wanted.items() if key in capable}}
        return keys | ({"prevResult": self.results[pod]} if pod in self.results else {})


def enter(host: str) -> None:
    """Moves the calling thread, and so the programs that it starts, to another host."""
    with open(f"/run/netns/{host}", "rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"cannot enter {host}")


def call_together(contender: Contender | Chain, command: str, pods: range) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda number: contender.call(command, f"pod{number}"), pods))


def total(runs: Iterable[Run]) -> Run:
    return Run(*map(sum, zip(*runs, strict=True)))


def median(values: list[float]) -> float:
    return statistics.median(values)


def median_wall(runs: list[Run]) -> float:
    return median([run.wall for run in runs])


def median_cpu(runs: list[Run]) -> float:
    return median([run.cpu for run in runs])


def median_cycles(runs: Runs, median_of: Callable[[list[Run]], float]) -> dict[str, float]:
    """Returns the median of an ADD and its DEL together, for each contender."""
    return {name: median_of([total(cycle) for cycle in zip(*both, strict=True)]) for name, both in runs.items()}


def median_versions(contenders: Sequence[Contender], rounds: int) -> dict[str, float]:
    """Returns the median milliseconds of VERSION of every contender, called in turn."""
    times: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            times[contender.name].append(contender.call("VERSION", "pod0").wall)
    return {name: median(walls) for name, walls in times.items()}


def cycles(contenders: Sequence[Contender | Chain], rounds: int) -> Runs:
    """Runs ADD and DEL of every contender in turn, round after round."""
    runs: Runs = {contender.name: ([], []) for contender in contenders}
    for turn in range(rounds + 2):
        for contender in contenders:
            attach = contender.call("ADD", "pod0")
            time.sleep(SETTLE_SECONDS / 10)  # the kernel's own work for a new link is not the next call's
            detach = contender.call("DEL", "pod0")
            if turn >= 2:  # the first rounds warm caches and create what is shared
                runs[contender.name][0].append(attach)
                runs[contender.name][1].append(detach)
    return runs
