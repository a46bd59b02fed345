"""podwired's part of a node: what its own --cleanup removes, and networks' files that it has installed."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from cni import PODWIRE
from cni.agent.node import conflist
from cni.agent.node.conflist import Conflist
from cni.agent.runtime.instance import FOLDER, NOTE, USUAL_FILE
from cni.diag.belongings.belonging import AGENT, Belonging, Kept
from cni.diag.node.agentlocks import is_held
from cni.diag.node.conflists import networks
from cni.protocol.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = ".podwired"  # cni.agent.node.conflist, memory: the end of the name of podwired's copy
FLANNELD = "flanneld"


def locks() -> list[str]:
    """Returns the files that podwireds of this node lock while they run."""
    try:
        names = [name for name in os.listdir(FOLDER) if name.startswith("podwired") and name.endswith(".lock")]
    except OSError:
        names = []
    usual = _lock_of(USUAL_FILE)
    return [*[f"{FOLDER}/{name}" for name in sorted(names)], *([usual] if os.path.exists(usual) else [])]


def running() -> list[str]:
    """Returns the locks that are held: podwired runs."""
    return [path for path in locks() if is_held(path)]


def _lock_of(subnet_file: str) -> str:
    folder, name = os.path.split(subnet_file)
    return f"{folder}/.{name}.lock"


def subnet_files() -> list[str]:
    """Returns the subnet files of podwireds that have run since the node started, as their locks name them."""
    files = []
    for path in locks():
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                _, note, subnet_file = file.read().partition(NOTE)
        except OSError:
            continue
        files += [subnet_file] if note else []
    return list(dict.fromkeys(files))


def parts() -> Iterator[Belonging | Kept]:
    """Yields what each podwired has made, which is one thing: its own --cleanup knows what belongs to it."""
    for subnet_file in subnet_files():
        title = f"podwired of {subnet_file}: its devices, routes, table, sockets and locks"
        if _runs(FLANNELD):
            yield Kept(title, "flanneld runs and may use them: podwired --cleanup, once it is stopped")
        else:
            yield Belonging(AGENT, title, partial(_clean_up, subnet_file))


def network_files(folder: str) -> Iterator[Belonging | Kept]:
    """Yields the networks' files that podwired has installed, and others that need podwire: people have written them.

    Raises OSError.
    """
    own = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.startswith(".") and name.endswith(MEMORY):
            path = f"{folder}/{name.removeprefix('.').removesuffix(MEMORY)}"
            own.append(path)
            yield Belonging(AGENT, path, partial(_remove_conflist, path))
    for network in networks(folder):
        if network.path not in own and any(config.get("type") == PODWIRE for config in network.configs):
            yield Kept(network.path, "podwired has not written it; without podwire a runtime cannot use it")


def _remove_conflist(path: str) -> None:
    """Removes a file that is still as podwired has written it. Raises OperationFailed."""
    copy = Conflist("", path)
    refused = conflist.remove(copy._replace(source=copy.memory))
    if refused:
        raise OperationFailed("; ".join(refused))


def _clean_up(subnet_file: str) -> None:
    """Raises OperationFailed; podwired logs why to stderr."""
    from cni.agent.main import run

    if run(["--cleanup", f"--subnet-file={subnet_file}"], {}, lambda _: None):
        raise OperationFailed(f"podwired --cleanup --subnet-file={subnet_file} has failed")


def _runs(name: str) -> bool:
    """Returns True if a process of this name runs."""
    for number in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{number}/comm", encoding="utf-8", errors="replace") as file:
                if file.read().strip() == name:
                    return True
        except OSError:  # it has just ended
            continue
    return False
