"""The part of this host that can be seen: a lease has leaked only where no container can be hidden."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni import AGENT, PODWIRE
from cni.effects.alive import addresses_in_use
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.protocol.address import IP

KINDS = ("mnt", "pid", "net")
FIRST = "/proc/1/comm"
OF_CONTAINERS = (PODWIRE, AGENT, "pause")  # first processes that no host has
REMEDY = "run it as root in the host's namespaces"


class Sight(Record):
    """The addresses in use on this host. `hidden` says what cannot be seen of it, and is empty if nothing is hidden."""

    addresses: set[IP]
    hidden: str


def look() -> Sight:
    """Scans all network namespaces. Raises OSError."""
    missed: list[str] = []
    addresses = addresses_in_use(missed)
    hidden = f"{missed[0]}: cannot look into this network namespace (remove it if it is stale)" if missed else ""
    return Sight(addresses, foreign_namespace() or hidden)


def foreign_namespace() -> str:
    """Returns which namespace of this process is not that of the host's first process; empty if all are."""
    for kind in KINDS:
        first = f"/proc/1/ns/{kind}"
        try:
            is_ours = os.readlink(first) == os.readlink(f"/proc/self/ns/{kind}")
        except OSError as error:
            return f"{first}: {error.strerror} ({REMEDY})"
        if not is_ours:
            return f"{first}: not the namespace of this process, so containers may be hidden ({REMEDY})"
    return _container()


def _container() -> str:
    """Returns why this looks like a container, as podwired's pod: it has PID 1 for itself, and the host's network and
    leases, and sees none of the other containers.
    """
    try:
        with open(FIRST, encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
    except OSError as error:
        return f"{FIRST}: {error.strerror} ({REMEDY})"
    is_hidden = os.getpid() == 1 or name in OF_CONTAINERS
    return f"{FIRST}: {name} is a container's first process, so others may be hidden ({REMEDY})" if is_hidden else ""
