"""The interface of a controller: it compares desired with actual state, and makes the one the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.agent.model.events import StoreEvent
    from cni.agent.policy.denials import PacketDenied
    from cni.agent.policy.events import PolicyEvent
    from cni.agent.runtime.control import Asked

    AgentEvent = StoreEvent | PolicyEvent | Asked | PacketDenied
    Notifications = Sequence[tuple[int, bytes]]  # (type, payload) of the kernel's notifications

NEVER = math.inf


class Controller(Protocol):
    """One of those that the agent's loop runs, in one thread."""

    @property
    def due_at(self) -> float:
        """The moment (time.monotonic) from which on `sync` has something to do; NEVER while it has nothing to."""

    def handle(self, event: AgentEvent) -> None:
        """Takes in an event of a store, if it is one of its own; `sync` acts on it."""

    def handle_links(self, notifications: Notifications) -> list[str]:
        """Returns how changes of links, addresses, neighbours and routes disturb what is desired; empty if they do not.

        Raises Malformed.
        """

    def handle_rules(self, notifications: Notifications) -> None:
        """Takes in changes in nftables; `sync` acts on those that disturb what is desired. Raises Malformed."""

    def request_full_sync(self) -> None:
        """Makes the next `sync` compare everything."""

    def request_rules_sync(self) -> None:
        """Makes the next `sync` compare rules and their sets."""

    def sync(self) -> bool:
        """Does what is due. Returns False if some of it failed, and has to be tried again."""


class Listener:
    """A controller that acts on events alone, and for which nothing is desired."""

    @property
    def due_at(self) -> float:
        return NEVER

    def handle_links(self, notifications: Notifications) -> list[str]:  # noqa: ARG002  # as in Controller
        """Returns an empty list."""
        return []

    def handle_rules(self, notifications: Notifications) -> None:
        """Does nothing."""

    def request_full_sync(self) -> None:
        """Does nothing."""

    def request_rules_sync(self) -> None:
        """Does nothing."""

    def sync(self) -> bool:
        """Returns True."""
        return True
