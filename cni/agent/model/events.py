"""What the agent asks of a store, and what a store tells it.

A store works in threads of its own and tells news as they come, each of which may come again at any time; it never
gives up, and what it cannot do now it tries again. StoreEvent of the same are in order: the last is true.
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
    """The network. `public_ips`: by which addresses the store wants this node to be reached, if it has a say."""

    config: NetworkConfig
    public_ips: tuple[IP, ...] = ()


class Held(Record):
    """The lease that this node has; `expires` in seconds since the epoch, None for never."""

    lease: Lease
    expires: float | None = None


class Listed(Record):
    """All leases by their key, in place of all that was told before; a text says why a key cannot be read.

    The own lease may be among them.
    """

    leases: dict[str, Lease | str]


class Changed(Record):
    """One lease; None: it is gone."""

    key: str
    lease: Lease | str | None


class Failed(Record):
    """The store cannot be used at present, and why; any other news ends that."""

    why: str


StoreEvent = Configured | Held | Listed | Changed | Failed


class Store(Protocol):
    def start(self, emit: Callable[[StoreEvent], None]) -> None:
        """Begins to tell: first what is Configured, and after `present` what is Held, then what is Listed."""

    def present(self, node: Node) -> None:
        """What the own lease has to say from now on; the store gets one and keeps it."""

    def ready(self) -> None:
        """Pods can be attached."""

    def close(self) -> None:
        """Ends the threads; the lease stays."""
