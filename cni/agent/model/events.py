"""The interface between the agent and a store of leases.

A store works in threads of its own and retries forever. It emits events as they happen, and may repeat any of them.
Events about one key arrive in order; the last one wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.model.lease import Lease, Node
    from cni.agent.model.network import NetworkConfig
    from cni.protocol.address import IP


class Configured(Record):
    """The network. `public_ips`: addresses by which the store prescribes that this node is reached, if it does."""

    config: NetworkConfig
    public_ips: tuple[IP, ...] = ()


class Held(Record):
    """The lease that this node holds; `expires` in seconds since the epoch, None for never."""

    lease: Lease
    expires: float | None = None


class Listed(Record):
    """All leases by key; they replace those emitted before. A text is the reason why a lease cannot be read.

    The own lease may be among them.
    """

    leases: dict[str, Lease | str]


class Changed(Record):
    """Leases by key that have changed together, as in one transaction; None: it was deleted."""

    leases: dict[str, Lease | str | None]


class Failed(Record):
    """An error of the store, which stands until another one or `Recovered` takes its place."""

    reason: str


class Recovered(Record):
    """The end of all errors of the store."""


StoreEvent = Configured | Held | Listed | Changed | Failed | Recovered


class Store(Protocol):
    """Leases of all nodes, wherever they are kept."""

    def start(self, emit: Callable[[StoreEvent], None]) -> None:
        """Starts to emit: first Configured, and after `register` Held, then Listed."""

    def register(self, node: Node) -> None:
        """Takes this node's part of its lease; the store allocates the lease and renews it."""

    def ready(self) -> None:
        """Is called once pods can be attached."""

    def close(self) -> None:
        """Ends the threads; the lease stays."""
