"""Index of the subnets and MAC addresses that leases claim, so that a change costs the leases concerned only.

Two leases conflict if their subnets overlap, or if one MAC address has two addresses on the underlay: the FDB holds
one. Several subnets behind one address do not conflict: a host with a new name or a new subnet has two leases until
the older one expires.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from typing import TYPE_CHECKING

from cni.agent.model.leaseformat import derived_mac
from cni.protocol.address import mac_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.agent.model.lease import Lease
    from cni.agent.model.network import NetworkConfig
    from cni.protocol.address import IP, Net

    Claim = tuple[int, ...] | tuple[int, bytes]  # family, first address, prefix of a subnet; family and MAC address
    Rank = tuple[bool, bool, bool, int, str]

RANKED = (  # why a lease takes precedence: the next reason decides between two that are equal by the one before
    "from whose address it follows",
    "which is ready",
    "which has the network's subnet length",
    "which is newer",
    "whose key comes first",
)

UNDISPUTED: Rank = (False, False, False, 0, "")
NOBODY: frozenset[str] = frozenset()


class Claims:
    """`leases` by their key. A lease that is applied holds its claims; the others only make them."""

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self.leases: dict[str, Lease] = {}
        self._claims: dict[str, list[Claim]] = {}  # by key
        self._claimants: dict[Claim, set[str]] = {}
        self._holders: dict[Claim, dict[str, None]] = {}  # in order
        self._subnets: list[tuple[int, ...]] = []  # claimed, sorted, each once
        self._lengths = Counter[int]()  # prefix lengths of the subnets
        self._vteps: Counter[tuple[bytes | None, IP]] = Counter()  # of the leases that hold their claims

    def add(self, key: str, lease: Lease) -> None:
        self.leases[key] = lease
        self._claims[key] = claims = _claims_of(lease)
        for claim in claims:
            self._claimants.setdefault(claim, set()).add(key)
        for claim in map(_of_subnet, lease.subnets):
            if len(self._claimants[claim]) == 1:
                insort(self._subnets, claim)
                self._lengths[claim[-1]] += 1

    def remove(self, key: str) -> None:
        """Removes a lease that does not hold its claims."""
        lease, claims = self.leases.pop(key), self._claims.pop(key)
        for claim in claims:
            self._claimants[claim].remove(key)
            if not self._claimants[claim]:
                del self._claimants[claim]
        for claim in map(_of_subnet, lease.subnets):
            if claim not in self._claimants:
                del self._subnets[bisect_left(self._subnets, claim)]
                self._lengths[claim[-1]] -= 1

    def hold(self, key: str) -> None:
        for claim in self._claims[key]:
            self._holders.setdefault(claim, {})[key] = None
        for endpoint in self.leases[key].endpoints:
            self._vteps[endpoint.vtep_mac, endpoint.public_ip] += 1

    def let_go(self, key: str) -> None:
        for claim in self._claims[key]:
            del self._holders[claim][key]
            if not self._holders[claim]:
                del self._holders[claim]
        for vtep in [(endpoint.vtep_mac, endpoint.public_ip) for endpoint in self.leases[key].endpoints]:
            self._vteps[vtep] -= 1
            if not self._vteps[vtep]:
                del self._vteps[vtep]

    def is_used(self, mac: bytes, public_ip: IP) -> bool:
        """Returns True if a lease that holds its claims is reached by this VTEP."""
        return self._vteps[mac, public_ip] > 0

    def concerned(self, key: str) -> set[str]:
        """Returns the keys that a change of this lease may affect: its own, and those that conflict with it, or with
        one of them.
        """
        affected, waiting = {key}, [key]
        while waiting:
            for claim in self._overlapping(self.leases[waiting.pop()]):
                claimants = self._claimants.get(claim, NOBODY)
                if not claimants <= affected:
                    waiting += claimants - affected
                    affected |= claimants
        return affected

    def conflict(self, lease: Lease) -> tuple[str, str]:
        """Returns the key of a lease that holds a claim of this one, and the claim as text; both empty if none does."""
        for claim in self._overlapping(lease):
            for key in self._holders.get(claim, ()):
                if shared := _shared(lease, self.leases[key]):
                    return key, shared
                break  # all holders of a MAC address have the same address on the underlay
        return "", ""

    def ranks(self, keys: Iterable[str]) -> dict[str, Rank]:
        """Returns the leases' ranks by key; the lowest takes precedence (RANKED).

        `keys` has to include all leases that may conflict with one another.
        """
        leases = {key: self.leases[key] for key in keys if key in self.leases}
        if len(leases) < 2:
            return dict.fromkeys(leases, UNDISPUTED)
        disputed = _disputed(leases.values())

        def steals(lease: Lease) -> bool:
            macs = [((endpoint.subnet.family, endpoint.vtep_mac), endpoint.public_ip) for endpoint in lease.endpoints]
            return any(disputed.get(mac, public_ip) != public_ip for mac, public_ip in macs)

        return {
            key: (steals(lease), not lease.lives, not self._is_usual(lease), -lease.created, key)
            for key, lease in leases.items()
        }

    def _is_usual(self, lease: Lease) -> bool:
        spaces = [(self._config.space(subnet.family), subnet) for subnet in lease.subnets]
        return all(space is not None and space.length == subnet.prefix for space, subnet in spaces)

    def _overlapping(self, lease: Lease) -> Iterator[Claim]:
        """Yields all claims, its own among them, that may conflict with the lease."""
        for endpoint in lease.endpoints:
            claim = family, first, prefix = _of_subnet(endpoint.subnet)
            if endpoint.vtep_mac is not None:
                yield family, endpoint.vtep_mac
            bits = endpoint.subnet.ip.bits
            low = bisect_left(self._subnets, claim)
            yield from self._subnets[low : bisect_left(self._subnets, (family, first + (1 << bits - prefix)), low)]
            for length, count in self._lengths.items():
                if count and length < prefix:
                    yield family, first >> bits - length << bits - length, length


def _claims_of(lease: Lease) -> list[Claim]:
    claims: list[Claim] = [_of_subnet(subnet) for subnet in lease.subnets]
    claims += [
        (endpoint.subnet.family, endpoint.vtep_mac) for endpoint in lease.endpoints if endpoint.vtep_mac is not None
    ]
    return claims


def _of_subnet(subnet: Net) -> tuple[int, int, int]:
    return subnet.ip.family, subnet.ip.value, subnet.prefix


def _disputed(leases: Iterable[Lease]) -> dict[tuple[int, bytes | None], IP]:
    """Returns the MAC addresses that leases claim for several underlay addresses, with the one each is derived from."""
    endpoints = [
        (endpoint, lease.vni) for lease in leases for endpoint in lease.endpoints if endpoint.vtep_mac is not None
    ]
    first: dict[tuple[int, bytes | None], IP] = {}
    several = {
        (endpoint.subnet.family, endpoint.vtep_mac)
        for endpoint, _ in endpoints
        if first.setdefault((endpoint.subnet.family, endpoint.vtep_mac), endpoint.public_ip) != endpoint.public_ip
    }
    return {
        (endpoint.subnet.family, endpoint.vtep_mac): endpoint.public_ip
        for endpoint, vni in endpoints
        if (endpoint.subnet.family, endpoint.vtep_mac) in several
        and endpoint.vtep_mac == derived_mac(endpoint.public_ip, vni)
    }


def _shared(lease: Lease, other: Lease) -> str:
    """Returns the subnet or MAC address by which two leases conflict; empty if they do not."""
    for endpoint in lease.endpoints:
        other_endpoint = other.endpoint(endpoint.subnet.family)
        if other_endpoint is None:
            continue
        if endpoint.subnet.contains(other_endpoint.subnet.ip) or other_endpoint.subnet.contains(endpoint.subnet.ip):
            return f"subnet {other_endpoint.subnet.text}"
        if (
            endpoint.vtep_mac is not None
            and endpoint.vtep_mac == other_endpoint.vtep_mac
            and endpoint.public_ip != other_endpoint.public_ip
        ):
            return f"MAC address {mac_text(endpoint.vtep_mac)}"
    return ""
