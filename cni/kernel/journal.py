"""What an ADD has done so far, each step with the way back, so that a failure leaves the machine as it was."""

from __future__ import annotations

from cni.kernel.netlink import Refused
from cni.spec.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.machine import Machine

FAILURES = (CniError, Refused, OSError)


class Journal:
    """The ways back, to be gone in reverse."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._ways_back: list[tuple[Callable[[], object], bool]] = []

    def add(self, way_back: Callable[[], object]) -> None:
        self._ways_back.append((way_back, False))

    def add_shared(self, way_back: Callable[[], object]) -> None:
        """For what attachments share: gone only if no other has come to depend on it."""
        self._ways_back.append((way_back, True))

    def roll_back(self) -> list[str]:
        """Goes all the way, whatever fails on it; returns what failed."""
        failed = []
        while self._ways_back:
            way_back, shared = self._ways_back.pop()
            try:
                if not shared or self._machine.unshared():
                    way_back()
            except FAILURES as error:
                failed.append(str(error))
        return failed
