"""The part of this host that can be seen: a lease has leaked only where no container can be hidden."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.effects.alive import addresses_in_use
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.protocol.address import IP

KINDS = ("mnt", "pid", "net")
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
    """Returns which namespace of this process is not that of PID 1; empty if all are."""
    for kind in KINDS:
        first = f"/proc/1/ns/{kind}"
        try:
            is_ours = os.readlink(first) == os.readlink(f"/proc/self/ns/{kind}")
        except OSError as error:
            return f"{first}: {error.strerror} ({REMEDY})"
        if not is_ours:
            return f"{first}: not the namespace of this process, so containers may be hidden ({REMEDY})"
    return ""
