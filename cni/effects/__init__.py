"""The effects: how each operation is applied, released and compared with what the kernel has.

Each file exports `EFFECTS`: an `Effect` by the name of the operation's record. cni.effects.engine looks them up.
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni.effects.host import Host
    from cni.effects.journal import Journal


class Effect(Record):
    """The functions of one operation: for ADD, with the undo put into the journal; for DEL, where "already gone" is
    success; for CHECK, which returns the difference, empty where there is none.
    """

    apply: Callable[[Host, Any, Journal], None]
    release: Callable[[Host, Any], None]
    differs: Callable[[Host, Any], str]


def not_released(host: Host, op: Any) -> None:
    """Does nothing: the object is deleted with the interface, or shared."""


def nothing_differs(host: Host, op: Any) -> str:
    """Returns an empty string: an event leaves nothing to compare."""
    return ""
