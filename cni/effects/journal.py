"""What an ADD has done so far, each step with the way back, so that a failure leaves the host as it was."""

from __future__ import annotations

from cni.kernel.netlink import Interrupted, NetlinkError
from cni.locks import set_interrupts
from cni.protocol.errors import CniError, OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from cni.effects.host import Host

FAILURES = (CniError, NetlinkError, Interrupted, OSError)  # all that an effect may raise


def error_text(error: BaseException) -> str:
    """A failure as people read it: what the system says, without numbers."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


class Journal:
    """The ways back, to be gone in reverse: first from what is the attachment's own, then from what it shares."""

    def __init__(self, host: Host, *, shared_stays: bool = False) -> None:
        """`shared_stays`: nobody can tell who else has come to depend on what is shared."""
        self._host = host
        self._shared_stays = shared_stays
        self._own: list[Callable[[], object]] = []
        self._shared: list[Callable[[], object]] = []

    def add(self, undo: Callable[[], object]) -> None:
        self._own.append(undo)

    def add_shared(self, undo: Callable[[], object]) -> None:
        """For what attachments share: gone only if no other has come to depend on it."""
        self._shared.append(undo)

    def run(self, step: Callable[[], object], undo: Callable[[], object], *, shared: bool = False) -> None:
        """A step that must not be gone back if it was refused: then what is there is another's.

        After any other failure nobody knows whether it was taken, so its way back counts.
        """
        undo_steps = self._shared if shared else self._own
        undo_steps.append(undo)
        try:
            step()
        except NetlinkError:
            undo_steps.remove(undo)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rolls back after any exception. Raises OperationFailed where not all could be undone."""
        if error is not None and (failed := self.roll_back()):
            raise OperationFailed(
                f"{error_text(error)}; and not all of it could be undone: {'; '.join(failed)}"
            ) from error

    def roll_back(self) -> list[str]:
        """Goes all the way, whatever fails on it, and whoever interrupts it; returns what failed."""
        set_interrupts()
        failed: list[str] = []
        self._go(self._own, failed)
        try:
            if self._shared and not self._shared_stays and self._host.is_sole_user():
                self._go(self._shared, failed)
        except FAILURES as error:
            failed.append(error_text(error))
        return failed

    def _go(self, undo_steps: list[Callable[[], object]], failed: list[str]) -> None:
        while undo_steps:
            try:
                undo_steps.pop()()
            except FAILURES as error:
                failed.append(error_text(error))
