"""The interface of a controller: it compares desired with actual state, and makes the one the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.agent.model.events import StoreEvent

    Changes = Sequence[tuple[int, bytes]]  # (type, payload) of the kernel's notifications


class Controller(Protocol):
    """One of those that the agent's loop runs, in one thread."""

    @property
    def is_due(self) -> bool:
        """True if `sync` has something to do."""

    def handle(self, event: StoreEvent) -> None:
        """Takes in an event of the store; `sync` acts on it."""

    def handle_links(self, changes: Changes) -> list[str]:
        """Returns how changes of links, addresses, neighbours and routes disturb what is desired; empty if they do not.

        Raises Malformed.
        """

    def handle_rules(self, changes: Changes) -> None:
        """Takes in changes in nftables; `sync` acts on those that disturb what is desired. Raises Malformed."""

    def request_full_sync(self) -> None:
        """Makes the next `sync` compare everything."""

    def request_rules_sync(self) -> None:
        """Makes the next `sync` compare rules and their sets."""

    def sync(self) -> bool:
        """Does what is due. Returns False if some of it failed, and has to be tried again."""
