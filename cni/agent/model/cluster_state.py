"""The state of the cluster by the store's events, and the peers that follow from it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.model.events import Changed, Configured, Failed, Held, Listed
from cni.agent.model.peers import Peers

if TYPE_CHECKING:
    from cni.agent.model.events import StoreEvent
    from cni.agent.model.lease import Lease, Node
    from cni.agent.model.network import NetworkConfig
    from cni.protocol.address import Net

    Before = dict[str, Lease | None]


class ClusterState:
    """`configured` and `held` are the last such events; `failure` is the store's current error, or empty."""

    def __init__(self) -> None:
        self.configured: Configured | None = None
        self.held: Held | None = None
        self.failure = ""
        self._leases: dict[str, Lease | str] | None = None
        self._peers: Peers | None = None
        self._before: Before = {}
        self._connected: tuple[Net, ...] = ()

    def handle(self, event: StoreEvent) -> bool:
        """Returns True if more has changed than single peers."""
        if isinstance(event, Changed):
            self._change(event)
            return False
        if isinstance(event, Listed):
            self._leases, self._peers = dict(event.leases), None
            return True
        if isinstance(event, Held):
            new = self.held is None or self.held.lease != event.lease
            self.held = event
        elif isinstance(event, Configured):
            new = self.configured != event
            self.configured = event
        else:
            self.failure = event.reason if isinstance(event, Failed) else ""
            return False
        if new:
            self._peers = None
        return new

    def _change(self, event: Changed) -> None:
        if self._leases is None:
            return
        for key, lease in event.leases.items():
            if lease is None:
                self._leases.pop(key, None)
            else:
                self._leases[key] = lease
            if self._peers is not None:
                for other, before in self._peers.put(key, lease).items():
                    self._before.setdefault(other, before)

    def lease_of(self, config: NetworkConfig, node: Node) -> Lease | None:
        """Returns the node's own lease, if it fits the network and the node; the rest of it may be outdated."""
        if self.held is None:
            return None
        lease = self.held.lease
        if any(
            endpoint.subnet.family not in config.families or config.error_of(endpoint.subnet)
            for endpoint in lease.endpoints
        ):
            return None
        lease_kind = (lease.backend, lease.vni, [endpoint.subnet.family for endpoint in lease.endpoints])
        return (
            lease
            if lease_kind == (node.backend, node.vni, [address.public_ip.family for address in node.addresses])
            else None
        )

    def resolve_peers(self, config: NetworkConfig, own: Lease, connected: tuple[Net, ...]) -> Peers | None:
        """Returns all peers as they are now, changes included; None until the leases are listed.

        `connected`: the networks that this node is connected to.
        """
        if self._leases is not None and (self._peers is None or self._connected != connected):
            self._peers, self._connected = Peers(config, own, connected), connected
            self._peers.load(self._leases)
        self._before = {}
        return self._peers

    @property
    def peers(self) -> Peers | None:
        """The peers as they were last resolved; None until then."""
        return self._peers

    @property
    def has_changes(self) -> bool:
        return bool(self._before)

    def take_changes(self) -> tuple[Before, Peers | None]:
        """Returns the leases applied before, of every peer that has changed since, and the peers as they are now."""
        before, self._before = self._before, {}
        return before, self._peers
