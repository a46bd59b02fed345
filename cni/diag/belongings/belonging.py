"""A thing of podwire's on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM, AGENT, TABLE, RULES, INTERFACE, LEASES, STATE = (
    "program",
    "agent",
    "table",
    "rules",
    "interface",
    "leases",
    "state",
)


class Belonging(Record):
    """A thing that is podwire's. `remove` raises one of FAILURES."""

    kind: str
    object: str
    remove: Callable[[], None]


class Kept(Record):
    """A thing that stays, and why."""

    object: str
    reason: str
