"""All other nodes as the store tells them, and which of them can be served.

What is wrong with one never harms another, but for two that claim the same: then the one whose key comes first is
served. A change costs the same however many nodes there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.leases import Lease
from cni.agent.network import VXLAN
from cni.spec.address import Net, mac_text

if TYPE_CHECKING:
    from cni.agent.leases import Way
    from cni.agent.network import NetworkConfig

    Claim = tuple[str, object]


class Peers:
    """Leases by their key: those that are `served`, and of every other one the fault."""

    def __init__(self, config: NetworkConfig, own: Lease) -> None:
        self._config = config
        self._own = own
        self._leases: dict[str, Lease] = {}
        self._unread: dict[str, str] = {}
        self._claims: dict[Claim, set[str]] = {}
        self._wide: set[str] = set()
        self.served: dict[str, Lease] = {}
        self.faults: dict[str, str] = {}

    def put(self, key: str, lease: Lease | str | None) -> dict[str, Lease | None]:
        """What the store says of a key now: a lease, a text that tells why it has none, or nothing any more.

        Returns of every key for which that may have changed the lease that was served. The own key is no peer's.
        """
        if key == self._own.key:
            return {}
        affected = {key} | self._forget(key)
        if isinstance(lease, Lease):
            affected |= self._claim(key, lease)
        elif lease is not None:
            self._unread[key] = lease
        before = {one: self.served.pop(one, None) for one in affected}
        for one in affected:
            self._judge(one)
        return before

    def _forget(self, key: str) -> set[str]:
        self._unread.pop(key, None)
        lease = self._leases.pop(key, None)
        if lease is None:
            return set()
        rivals: set[str] = set()
        for claim in self._claims_of(lease):
            holders = self._claims[claim]
            holders.discard(key)
            rivals |= holders
            if not holders:
                del self._claims[claim]
        if key in self._wide:
            self._wide.discard(key)
            rivals |= set(self._leases)
        return rivals

    def _claim(self, key: str, lease: Lease) -> set[str]:
        self._leases[key] = lease
        rivals: set[str] = set()
        for claim in self._claims_of(lease):
            rivals |= self._claims.setdefault(claim, set())
            self._claims[claim].add(key)
        if any(way.subnet.prefix < self._bucket(way.subnet.family) for way in lease.ways):
            self._wide.add(key)
            rivals |= set(self._leases)
        return rivals

    def _bucket(self, family: int) -> int:
        """The prefix length by which subnets are looked up: that of nearly all of them."""
        space = self._config.space(family)
        return space.length if space is not None else 0

    def _claims_of(self, lease: Lease) -> list[Claim]:
        """What no two nodes can have: addresses, MAC addresses, and the stretch of the network that a subnet is in."""
        found: list[Claim] = []
        for way in lease.ways:
            family = way.subnet.family
            found.append(("address", way.public_ip))
            found.append(("stretch", Net(way.subnet.ip, min(self._bucket(family), way.subnet.prefix)).network))
            if way.mac is not None:
                found.append((f"MAC address {family}", way.mac))
        return found

    def _judge(self, key: str) -> None:
        lease = self._leases.get(key)
        fault = self._unread.get(key, "") if lease is None else self._fault(key, lease)
        self.faults.pop(key, None)
        if fault:
            self.faults[key] = fault
        elif lease is not None:
            self.served[key] = lease

    def _fault(self, key: str, lease: Lease) -> str:
        if lease.backend != self._config.backend.kind:
            return f"its backend is {lease.backend or 'not told'}, not {self._config.backend.kind}"
        if lease.backend == VXLAN and lease.vni != self._config.backend.vni:
            return f"its VNI is {lease.vni}, not {self._config.backend.vni}"
        for way in lease.ways:
            if fault := self._fault_of(way):
                return fault
        rivals = {one for claim in self._claims_of(lease) for one in self._claims[claim]} | self._wide
        for rival in sorted(rivals):
            if rival < key and (what := _shared(lease, self._leases[rival])):
                return f"{what} is {rival}'s already"
        return ""

    def _fault_of(self, way: Way) -> str:
        space = self._config.space(way.subnet.family)
        if space is not None and not (
            space.network.contains(way.subnet.ip) and way.subnet.prefix > space.network.prefix
        ):
            return f"{way.subnet.text} is not in {space.network.text}"
        mine = self._own.way(way.subnet.family)
        if mine is not None and (what := _shared_way(way, mine)):
            return f"{what} is this node's"
        return ""


def _shared(one: Lease, other: Lease) -> str:
    for way in one.ways:
        theirs = other.way(way.subnet.family)
        if theirs is not None and (what := _shared_way(way, theirs)):
            return what
    return ""


def _shared_way(one: Way, other: Way) -> str:
    if one.subnet.contains(other.subnet.ip) or other.subnet.contains(one.subnet.ip):
        return f"subnet {other.subnet.text}"
    if one.public_ip == other.public_ip:
        return f"address {other.public_ip.text}"
    if one.mac is not None and one.mac == other.mac:
        return f"MAC address {mac_text(one.mac)}"
    return ""
