"""All other nodes as the store tells them, and which of them can be served.

What is wrong with one never harms another, but for two that claim the same: then the one whose key comes first is
served. A change costs the same however many nodes there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
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

    def __init__(self, config: NetworkConfig, own: Lease, connected: tuple[Net, ...] = ()) -> None:
        """`connected`: the networks that this node itself is in."""
        self._config = config
        self._connected = connected
        self._own = own
        self._leases: dict[str, Lease] = {}
        self._unusable: dict[str, str] = {}  # for faults of their own: these claim nothing
        self._claims: dict[Claim, list[str]] = {}  # who claims it, in order
        self._subnets: list[Net] = []  # in order
        self._lengths = Counter[int]()  # of the subnets' prefixes
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
            lease = self._of_the_network(lease)
            lease = self._own_fault(lease) or lease
        if isinstance(lease, Lease):
            affected |= self._claim(key, lease)
        elif lease is not None:
            self._unusable[key] = lease
        before = {one: self.served.pop(one, None) for one in affected}
        for one in affected:
            self._judge(one)
        return before

    def _forget(self, key: str) -> set[str]:
        """Returns who may be served now."""
        self._unusable.pop(key, None)
        lease = self._leases.pop(key, None)
        if lease is None:
            return set()
        for claim in _claims_of(lease):
            self._claims[claim].remove(key)
            if not self._claims[claim]:
                del self._claims[claim]
        for subnet in lease.subnets:
            del self._subnets[bisect_left(self._subnets, subnet)]
            self._lengths[subnet.prefix] -= 1
        return self._rivals(lease)

    def _claim(self, key: str, lease: Lease) -> set[str]:
        """Returns who may not be served any more."""
        rivals = self._rivals(lease)
        self._leases[key] = lease
        for claim in _claims_of(lease):
            insort(self._claims.setdefault(claim, []), key)
        for subnet in lease.subnets:
            insort(self._subnets, subnet)
            self._lengths[subnet.prefix] += 1
        return rivals

    def _rivals(self, lease: Lease) -> set[str]:
        """The first of those that claim the same, one for each claim: all others are behind that one already."""
        claims = set(_claims_of(lease))
        for subnet in lease.subnets:
            inner = slice(
                bisect_left(self._subnets, subnet), bisect_right(self._subnets, Net(subnet.last, subnet.ip.bits))
            )
            claims.update(("subnet", one) for one in self._subnets[inner])
            outer = [length for length, count in self._lengths.items() if count and length < subnet.prefix]
            claims.update(("subnet", Net(subnet.ip, length).network) for length in outer)
        return {self._claims[claim][0] for claim in claims if claim in self._claims}

    def _judge(self, key: str) -> None:
        lease = self._leases.get(key)
        fault = self._unusable.get(key, "") if lease is None else self._fault(key, lease)
        self.faults.pop(key, None)
        if fault:
            self.faults[key] = fault
        elif lease is not None:
            self.served[key] = lease

    def _of_the_network(self, lease: Lease) -> Lease:
        """Without families that the network does not use, as after it had both."""
        return lease._replace(ways=tuple([way for way in lease.ways if self._config.space(way.subnet.family)]))

    def _own_fault(self, lease: Lease) -> str:
        if lease.backend != self._config.backend.kind:
            return f"its backend is {lease.backend or 'not told'}, not {self._config.backend.kind}"
        if lease.backend == VXLAN and lease.vni != self._config.backend.vni:
            return f"its VNI is {lease.vni}, not {self._config.backend.vni}"
        for way in lease.ways:
            if fault := self._fault_of(way):
                return fault
        return "" if lease.ways else "it has no subnet of the network's families"

    def _fault(self, key: str, lease: Lease) -> str:
        first = min(self._rivals(lease))
        return f"{_shared(lease, self._leases[first])} is {first}'s already" if first < key else ""

    def _fault_of(self, way: Way) -> str:
        if fault := self._config.fault_of(way.subnet):
            return fault
        if not way.is_reachable:
            return f"{way.public_ip.text} is no address of a node"
        if way.subnet.contains(way.public_ip):
            return f"its own address {way.public_ip.text} is in {way.subnet.text}"
        for net in self._connected:
            if _takes(way.subnet, net, self._config.network(way.subnet.family)):
                return f"{way.subnet.text} would take {net.text}, which this node is in"
        mine = self._own.way(way.subnet.family)
        if mine is not None and (what := _shared_way(way, mine)):
            return f"{what} is this node's"
        return ""


def _claims_of(lease: Lease) -> list[Claim]:
    """What no two nodes can have."""
    found: list[Claim] = []
    for way in lease.ways:
        found += [("subnet", way.subnet), ("address", way.public_ip)]
        if way.mac is not None:
            found.append((f"MAC address {way.subnet.family}", way.mac))
    return found


def _takes(subnet: Net, net: Net, network: Net) -> bool:
    """Traffic for (a part of) a node's network would go to the peer. Where pods' network is a part of the nodes', a
    subnet in both is meant.
    """
    return subnet.contains(net.ip) or (net.contains(subnet.ip) and network.contains(net.ip))


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
