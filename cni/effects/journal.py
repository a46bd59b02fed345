"""The undo log of an ADD, so that a failure leaves the host as it was."""

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
    """Returns an error's text for users: that of strerror(3), without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


class Journal:
    """Undo steps, run in reverse order: first those of the attachment's own objects, then those of shared ones."""

    def __init__(self, host: Host, *, shared_stays: bool = False) -> None:
        """Begins empty. `shared_stays`: shared objects are kept, since it is unknown who else uses them by now."""
        self._host = host
        self._shared_stays = shared_stays
        self._own: list[Callable[[], object]] = []
        self._shared: list[Callable[[], object]] = []

    def add(self, undo: Callable[[], object]) -> None:
        self._own.append(undo)

    def add_shared(self, undo: Callable[[], object]) -> None:
        """Adds an undo of a shared object: it runs only if no other attachment uses it."""
        self._shared.append(undo)

    def run(self, step: Callable[[], object], undo: Callable[[], object], *, shared: bool = False) -> None:
        """Runs `step`; if the kernel rejects it, the undo is dropped, because the existing object is not ours.

        After any other failure it is unknown whether the step took effect, so the undo stays.
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
        """Runs all undo steps, whatever fails and whatever signal arrives; returns the errors."""
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
