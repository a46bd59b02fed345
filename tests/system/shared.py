"""The example network, and what its pods share on a host: that may stay when the last of them is gone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine import Machine, Pod
    from tests.snapshot import Snapshot
    from tests.system.plugins import Json

CONFLIST = Path(__file__).parents[2] / "conf/10-podwire.conflist"
STATE = ("/var/lib/cni", "/run/cni", "/run/podwire", "/run/cni-ipam-state", "/run/flannel")
LIBCNI = "/var/lib/cni/results/"  # what libcni remembers for DEL; plugins have no part in it

_ONE_POD = re.compile(r"10\.88\.0\.[1-9]|cnitool-|podwire-\d+-")  # an address, or a container ID of these tests

# The bridge with the gateway, forwarding, nft objects without elements or a pod's address, the allocator's place.
_SHARED: dict[str, Callable[[str], object]] = {
    "links": lambda line: line.startswith("cni0 kind=bridge"),
    "addresses": lambda line: line == "cni0 10.88.0.1/16 global",
    "routes": lambda line: '"dst": "10.88.0.0/16"' in line and '"dev": "cni0"' in line,
    "nft": lambda line: not line.startswith("element") and not _ONE_POD.search(line),
    "sysctls": lambda line: line.startswith("net/ipv4/"),
    "files": lambda line: line.startswith(LIBCNI) or "last_reserved_ip" in line or not _ONE_POD.search(line),
}


def example() -> Json:
    """Returns the example network's configuration."""
    network: Json = json.loads(CONFLIST.read_text())
    return network


def assert_only_shared(news: Snapshot) -> None:
    """Asserts that these lines of a snapshot are none of a single pod."""
    left = [line for section, lines in news.items() for line in lines if not _SHARED[section](line)]
    assert not left, "\n".join(left)


def without_marks(snapshot: Snapshot) -> Snapshot:
    """Leaves out where the allocator goes on, which moves with every ADD, and the stamp of its cache."""
    marks = ("last_reserved_ip", "/run/podwire/ipam/")
    return {**snapshot, "files": [line for line in snapshot["files"] if not any(mark in line for mark in marks)]}


def seen(machine: Machine) -> Snapshot:
    """Returns all that plugins may change or write, without these marks."""
    return without_marks(machine.snapshot(STATE))


def without_pod(snapshot: Snapshot, pod: Pod) -> Snapshot:
    """Leaves out what was inside a pod."""
    return {
        section: [line for line in lines if not line.startswith(f"{pod.name}: ")] for section, lines in snapshot.items()
    }


def links_of(where: Machine | Pod) -> list[str]:
    """Returns the names of all links."""
    return [link["ifname"] for link in json.loads(where.run("ip", "-j", "link").stdout)]
