"""The other nodes by their leases, and which of these can be applied.

An invalid lease does not affect others. Of two that conflict, that of the node that lives is applied, or the newer one.
A change costs the same however many nodes there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.model.claims import RANKED, Claims
from cni.agent.model.lease import Lease
from cni.agent.model.leaseformat import lease_format
from cni.protocol.address import mac_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.agent.model.lease import Endpoint
    from cni.agent.model.network import NetworkConfig
    from cni.protocol.address import IP, Net


class Peers:
    """Leases by their key: those that are `served`, and the `errors` of all others."""

    def __init__(self, config: NetworkConfig, own: Lease, connected: tuple[Net, ...] = ()) -> None:
        """`connected`: the networks that this node itself is in."""
        self._config = config
        self._connected = connected
        self._own = own
        self._claims = Claims(config)
        self._unusable: dict[str, str] = {}  # errors of leases that are invalid by themselves: these claim nothing
        self.served: dict[str, Lease] = {}
        self.errors: dict[str, str] = {}

    def load(self, leases: Mapping[str, Lease | str]) -> None:
        """Takes in all leases at once; there are none yet."""
        for key, lease in leases.items():
            if key != self._own.key:
                self._note(key, lease)
        self._apply(leases)

    def put(self, key: str, lease: Lease | str | None) -> dict[str, Lease | None]:
        """Takes in the lease of a key: a lease, the reason why it cannot be read, or None if it is gone.

        Returns, for every key that has changed, the lease that was applied before. The node's own key is ignored.
        """
        if key == self._own.key:
            return {}
        known = key in self._claims.leases
        affected = self._claims.concerned(key) if known else {key}
        before = {other: (self.served.get(other), self.errors.pop(other, "")) for other in affected}
        for other in affected:
            self._let_go(other)
        if known:
            self._claims.remove(key)
        self._unusable.pop(key, None)
        if self._note(key, lease):
            for other in self._claims.concerned(key) - affected:
                before[other] = (self.served.get(other), self.errors.pop(other, ""))
                self._let_go(other)
        self._apply(before)
        return {
            other: lease
            for other, (lease, error) in before.items()
            if (self.served.get(other), self.errors.get(other, "")) != (lease, error)
        }

    def is_used(self, mac: bytes, public_ip: IP) -> bool:
        """Returns True if a lease that is served is reached by this VTEP: several may share one."""
        return self._claims.is_used(mac, public_ip)

    def _let_go(self, key: str) -> None:
        if self.served.pop(key, None) is not None:
            self._claims.let_go(key)

    def _note(self, key: str, lease: Lease | str | None) -> bool:
        """Notes a lease, as it is applied. Returns False if it is invalid by itself, or gone."""
        if isinstance(lease, Lease):
            lease = self._adapted(lease)
            lease = self._error_of(lease) or lease
        if isinstance(lease, Lease):
            self._claims.add(key, lease)
            return True
        if lease is not None:
            self._unusable[key] = lease
        return False

    def _apply(self, keys: Iterable[str]) -> None:
        """Decides which of these leases, none of them applied at the moment, are applied."""
        ranks = self._claims.ranks(keys)
        for key in sorted(ranks, key=ranks.__getitem__):
            lease = self._claims.leases[key]
            holder, claim = self._claims.conflict(lease) if len(ranks) > 1 else ("", "")
            if holder:
                reason = next(
                    RANKED[index] for index in range(len(RANKED)) if ranks[holder][index] != ranks[key][index]
                )
                self.errors[key] = f"{claim} is {holder}'s, {reason}"
            else:
                self.served[key] = lease
                self._claims.hold(key)
        self.errors |= {key: self._unusable[key] for key in keys if key in self._unusable}

    def _adapted(self, lease: Lease) -> Lease:
        """Returns the lease without families that the network does not use, and with its VNI if it names none."""
        endpoints = tuple([endpoint for endpoint in lease.endpoints if self._config.space(endpoint.subnet.family)])
        vni = lease.vni or lease_format(lease.backend).vni(self._config.backend)
        is_adapted = vni == lease.vni and len(endpoints) == len(lease.endpoints)
        return lease if is_adapted else lease._replace(endpoints=endpoints, vni=vni)

    def _error_of(self, lease: Lease) -> str:
        """Returns why a lease is invalid by itself; empty if it is valid."""
        if lease.backend != self._config.backend.kind:
            return f"its backend is {lease.backend or 'missing'}, not {self._config.backend.kind}"
        if error := lease_format(lease.backend).conflict(lease.vni, self._config.backend):
            return error
        for endpoint in lease.endpoints:
            if error := self._endpoint_error(endpoint):
                return error
        return "" if lease.endpoints else "it has no subnet of the network's families"

    def _endpoint_error(self, endpoint: Endpoint) -> str:
        if error := self._config.error_of(endpoint.subnet):
            return error
        if not endpoint.is_reachable:
            return f"{endpoint.public_ip.text} is not an address of a node"
        if endpoint.subnet.contains(endpoint.public_ip):
            return f"its own address {endpoint.public_ip.text} is in {endpoint.subnet.text}"
        for net in self._connected:
            if _takes_traffic(endpoint.subnet, net, self._config.network(endpoint.subnet.family)):
                return f"{endpoint.subnet.text} overlaps {net.text}, a network that this node is connected to"
        own = self._own.endpoint(endpoint.subnet.family)
        if own is not None and (claim := _shared(endpoint, own)):
            return f"{claim} is this node's"
        return ""


def _takes_traffic(subnet: Net, net: Net, network: Net) -> bool:
    """Returns True if a peer's subnet would take traffic of `net`, a network of this node.

    A network inside the subnet keeps its traffic, as the longer prefix wins. If the pods' `network` is a part of the
    nodes', a subnet in both is meant to be so.
    """
    return network.prefix <= net.prefix <= subnet.prefix and net.contains(subnet.ip)


def _shared(endpoint: Endpoint, own: Endpoint) -> str:
    """Returns the subnet or address of this node that the endpoint claims; empty if it claims none."""
    if endpoint.subnet.contains(own.subnet.ip) or own.subnet.contains(endpoint.subnet.ip):
        return f"subnet {own.subnet.text}"
    if endpoint.public_ip == own.public_ip:
        return f"address {own.public_ip.text}"
    if endpoint.vtep_mac is not None and endpoint.vtep_mac == own.vtep_mac:
        return f"MAC address {mac_text(endpoint.vtep_mac)}"
    return ""
