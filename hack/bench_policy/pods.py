"""Two pods of this node, attached by routes, and what passes between them."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hack.bench_policy.objects import ALLOWED_PORT, CLIENT, OTHER_PORT, SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMESPACES = Path("/run/netns")
GATEWAY = "10.1.1.1"
CONNECT_SECONDS = 0.2
PROBES, PROBE_SECONDS = 1200, 0.002  # of when a change is in force
DENIED_IN_A_ROW = 30  # so many probes show that it is
_LIBC = ctypes.CDLL(None, use_errno=True)


def make_machine() -> None:
    """Mounts an empty /run, and adds an uplink with the default route."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    NAMESPACES.mkdir()
    batch(
        "link add uplink type veth peer name wire", "address add 192.0.2.1/24 dev uplink", "link set lo up",
        "link set wire up", "link set uplink up", "route add default via 192.0.2.254",
    )  # fmt: skip
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def attach(name: str, ip: str) -> None:
    """Attaches a pod as podwire's mode routed does."""
    batch(f"netns add {name}", f"link add veth-{name} type veth peer name eth0 netns {name}")
    batch(f"link set veth-{name} up", f"address add {GATEWAY}/32 dev veth-{name}")
    within = ("link set lo up", f"address add {ip}/32 dev eth0", "link set eth0 up",
              f"route add {GATEWAY} dev eth0 scope link", f"route add default via {GATEWAY}")  # fmt: skip
    batch(*within, namespace=name)
    batch(f"route add {ip}/32 dev veth-{name}")


def batch(*lines: str, namespace: str = "") -> None:
    command = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    subprocess.run(command, input="\n".join(lines).encode(), check=True)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Moves this thread to a pod's namespace: sockets that it creates there stay there."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    namespace = os.open(NAMESPACES / name, os.O_RDONLY)
    try:
        if _LIBC.setns(namespace, 0):
            raise OSError(ctypes.get_errno(), f"cannot enter {name}")
        yield
    finally:
        _LIBC.setns(home, 0)
        os.close(home)
        os.close(namespace)


class Pods:
    """The pods `client` and `server`, of which the latter listens."""

    def __init__(self) -> None:
        for name, ip in (("client", CLIENT), ("server", SERVER)):
            attach(name, ip)
        with inside("server"):
            self._other = socket.create_server((SERVER, OTHER_PORT), backlog=100)
            self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._datagrams.bind((SERVER, OTHER_PORT))
        for listener in (self._other, self._datagrams):
            listener.setblocking(False)

    def is_denied(self) -> bool:
        """True if a connection that no policy allows fails."""
        with inside("client"):
            attempt = socket.socket()
        attempt.settimeout(CONNECT_SECONDS)
        with attempt:
            try:
                attempt.connect((SERVER, OTHER_PORT))
            except OSError:
                return True
        with suppress(BlockingIOError):
            self._other.accept()[0].close()
        return False

    def probe_until(self, *, denied: bool) -> float:
        """Sends datagrams, each as a connection of its own, until they pass or not, and returns when that began."""
        with inside("client"):
            senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(PROBES)]
        self._drain()
        since, row = 0.0, 0
        try:
            for sender in senders:
                sent = time.perf_counter()
                sender.sendto(b"", (SERVER, OTHER_PORT))
                time.sleep(PROBE_SECONDS)
                if (self._drain() == 0) == denied:
                    since, row = since or sent, row + 1
                    if row == (DENIED_IN_A_ROW if denied else 1):
                        return since
                else:
                    since, row = 0.0, 0
        finally:
            for sender in senders:
                sender.close()
        raise SystemExit(f"bench: a change was not in force after {PROBES} probes")

    def _drain(self) -> int:
        count = 0
        with suppress(BlockingIOError):
            while True:
                self._datagrams.recv(1)
                count += 1
        return count


def measure(traffic: Path, mode: str, seconds: float) -> tuple[int, float]:
    """Returns how many connections or round trips there were, and the CPU seconds of each."""
    paths = [str(NAMESPACES / name) for name in ("client", "server")]
    command = [str(traffic), mode, str(seconds), *paths, SERVER, str(ALLOWED_PORT)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    count, nanoseconds = done.stdout.split()
    return int(count), float(nanoseconds) / 1e9
