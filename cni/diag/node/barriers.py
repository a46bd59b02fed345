"""Firewalls of the host that drop or reject what containers send through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.effects.forward_audit import refuse_drops
from cni.protocol.errors import PluginNotAvailable
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host


class Barrier(Record):
    """A chain that lets no packet of a container pass, and what to do about it."""

    cause: str
    remedy: str


def barrier_of(host: Host, families: Iterable[int], interface: str) -> Barrier | None:
    """Returns what bars packets that the host receives by an interface (NAME* stands for a prefix); None if nothing
    does. Raises one of FAILURES.
    """
    try:
        refuse_drops(host, families, interface)
    except PluginNotAvailable as error:
        return parse_barrier(error.message)
    return None


def parse_barrier(message: str) -> Barrier:
    """Returns the parts of STATUS's message: `CAUSE (DETAIL): REMEDY`, or `CAUSE (REMEDY)`."""
    cause, end, remedy = message.partition("): ")
    if end:
        return Barrier(f"{cause})", remedy)
    cause, _, remedy = message.rpartition(" (")
    return Barrier(cause, remedy.removesuffix(")"))
