"""Agents that maintain a pod network here, by their processes: podwired, flanneld."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

PODWIRED, FLANNELD = "podwired", "flanneld"
FOLDER = "/proc"
USUAL_FILE = "/run/flannel/subnet.env"
LOCK, VNI = ".lock", "-vni-"
FLAG = b"-subnet-file"
VARIABLE = b"FLANNELD_SUBNET_FILE="


class Agent(Record):
    """A process. `started` is in clock ticks since boot; `states` has what it alone may maintain, in words, with the
    identity of the file by which it excludes others, empty for none.
    """

    pid: int
    name: str
    parent: int
    started: int
    states: dict[str, str]


def agents() -> list[Agent]:
    """Returns the agents in this network namespace, the oldest first. Raises OSError."""
    own = os.readlink(f"{FOLDER}/self/ns/net")
    numbers = [int(name) for name in os.listdir(FOLDER) if name.isdecimal()]
    running = [agent for number in numbers if (agent := _agent(f"{FOLDER}/{number}", number, own)) is not None]
    return sorted(running, key=lambda agent: (agent.started, agent.pid))


def _agent(path: str, pid: int, own: str) -> Agent | None:
    """Returns None for another program, one that ends just now, one elsewhere, and a command such as podwired status,
    which maintains nothing.
    """
    try:
        with open(f"{path}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
        name, fields = text.partition("(")[2].rpartition(")")[0], text.rpartition(")")[2].split()
        if name not in (PODWIRED, FLANNELD) or os.readlink(f"{path}/ns/net") != own:
            return None
        states = dict(_locked(path) if name == PODWIRED else _named(path))
        return Agent(pid, name, int(fields[1]), int(fields[19]), states) if states else None
    except OSError:
        return None


def _locked(path: str) -> Iterator[tuple[str, str]]:
    """Yields what podwired has locked: its locks are open files (cni/agent/runtime/instance.py)."""
    for descriptor in os.listdir(f"{path}/fd"):
        folder, _, name = os.readlink(f"{path}/fd/{descriptor}").rpartition("/")
        locked = name.removesuffix(LOCK)
        if locked != name and (name.startswith(".") or VNI in name):
            status = os.stat(f"{path}/fd/{descriptor}")
            state = f"{folder}/{locked[1:]}" if name.startswith(".") else f"VNI {locked.rpartition(VNI)[2]}"
            yield state, f"{status.st_dev}:{status.st_ino}"


def _named(path: str) -> Iterator[tuple[str, str]]:
    """Yields the subnet file of flanneld, which locks nothing, by its command line, else its environment."""
    with open(f"{path}/cmdline", "rb") as file:
        arguments = file.read().split(b"\0")
    with open(f"{path}/environ", "rb") as file:
        values = [each.removeprefix(VARIABLE) for each in file.read().split(b"\0") if each.startswith(VARIABLE)]
    for argument, following in zip(arguments, [*arguments[1:], b""], strict=True):
        flag, equals, value = argument.partition(b"=")
        if flag in (FLAG, b"-" + FLAG):
            values.append(value if equals else following)
    yield os.fsdecode(values[-1]) if values else USUAL_FILE, ""
