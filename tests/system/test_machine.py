"""The tests' machine of namespaces: it has what it should have, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.machine import Machine, MachineError
from tests.snapshot import added

if TYPE_CHECKING:
    from collections.abc import Callable

ELEMENT = 'add element inet test addresses { 192.0.2.9 comment "pod1" }'
TABLE = f"add table inet test; add set inet test addresses {{ type ipv4_addr; }}; {ELEMENT}"


@pytest.mark.parametrize(
    ("change", "section", "seen"),
    [
        ("ip link add br0 type bridge", "links", "br0 kind=bridge"),
        ("ip link set lo alias container-1", "links", "alias=container-1"),
        ("ip address add 192.0.2.7/32 dev lo", "addresses", "lo 192.0.2.7/32 global"),
        ("ip route add 198.51.100.0/24 dev lo table 7", "routes", '"dst": "198.51.100.0/24"'),
        ("ip rule add from 192.0.2.7 table 7", "rules", '"src": "192.0.2.7"'),
        ("tc qdisc add dev lo root tbf rate 1mbit burst 10k latency 9ms", "qdiscs", '"kind": "tbf"'),
        (f"nft {TABLE}", "nft", 'element inet test addresses {"elem": {"comment": "pod1", "val": "192.0.2.9"}}'),
        ("sysctl -q net.ipv4.ip_forward=1", "sysctls", "net/ipv4/ip_forward:1"),
        ("mkdir /run/podwire", "files", "/run/podwire/"),
        ("cp /proc/sys/kernel/ostype /var/lib/cni/lease", "files", "/var/lib/cni/lease 'Linux\\n'"),
    ],
)
def test_a_snapshot_shows_each_change(machine: Machine, change: str, section: str, seen: str) -> None:
    before = machine.snapshot()
    assert machine.snapshot() == before
    machine.run(*change.split(maxsplit=1) if change.startswith("nft") else change.split())
    news = added(before, machine.snapshot())
    assert any(seen in line for line in news[section]), news


def test_nothing_done_in_a_machine_is_seen_outside(machine: Machine) -> None:
    before = outside_view()
    machine.outside().serve(8080)
    machine.run("touch", "/etc/made-by-a-test", "/opt/made-by-a-test", "/run/made-by-a-test")
    assert machine.ask("192.0.2.2", 8080) == "192.0.2.1"
    assert outside_view() == before
    assert not [folder for folder in ("/etc", "/opt", "/run") if os.path.exists(f"{folder}/made-by-a-test")]


def test_the_end_of_a_machine_ends_what_runs_in_it() -> None:
    with Machine() as machine:
        started = machine.start("sh", "-c", "setsid sleep 1000 & echo started; exec sleep 1000")
        assert started.stdout
        assert started.stdout.readline() == "started\n"
        namespace = machine.call(os.readlink, "/proc/self/ns/net")
        assert inhabitants(namespace) != []
    assert inhabitants(namespace) == []


def test_a_function_is_called_inside(machine: Machine) -> None:
    pod = machine.pod("inner")
    assert machine.call(os.listdir, "/run/netns") == ["inner"]
    assert machine.call(os.path.exists, pod.path)
    with pytest.raises(FileNotFoundError):
        machine.call(os.listdir, "/run/nowhere")


@pytest.mark.parametrize("ask", [lambda machine: machine.run("false"), lambda machine: machine.ask("127.0.0.1", 9)])
def test_what_fails_inside_is_an_error_outside(machine: Machine, ask: Callable[[Machine], object]) -> None:
    with pytest.raises(MachineError):
        ask(machine)


def inhabitants(namespace: str) -> list[str]:
    """Returns the processes in a network namespace."""
    pids = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{number}/ns/net") == namespace:
                pids.append(number)
        except OSError:
            continue  # ended meanwhile, or another user's
    return pids


def outside_view() -> list[str]:
    """Returns the links, namespaces and mounts where the tests themselves run."""
    commands = (("ip", "-br", "link"), ("ip", "netns"), ("cat", "/proc/self/mounts"))
    return [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
