"""Which address an attachment gets: round robin through a range set, or the one that was asked for (pure).

Round robin starts after the address leased last, so that a container in a crash loop does not meet its old address
again until the whole set has been used (reference: backend/allocator/allocator.go, GetIter).
"""

from __future__ import annotations

from cni.protocol.address import IP, Net
from cni.protocol.errors import InvalidConfig
from cni.protocol.result import IPConfig
from ipam.ranges import Holders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ipam.ranges import Range, RangeSet

    FirstFree = Callable[[int, int, int], int | None]  # (family, low, high) -> lowest value not leased, ends included
    Stretch = tuple[Range, int, int]


def _round(one: RangeSet, last: IP | None) -> Iterator[Stretch]:
    """Every address of the set once, as stretches in order of their turn."""
    begun = next((index for index, part in enumerate(one.ranges) if last and part.contains(last)), None)
    if begun is None or last is None:
        for part in one.ranges:
            yield part, part.start.value, part.end.value
        return
    part = one.ranges[begun]
    yield part, last.value + 1, part.end.value
    for other in one.ranges[begun + 1 :] + one.ranges[:begun]:
        yield other, other.start.value, other.end.value
    yield part, part.start.value, last.value


def _around_gateway(stretch: Stretch) -> Iterator[Stretch]:
    part, low, high = stretch
    gateway = part.gateway.value
    if low <= gateway <= high:
        yield part, low, gateway - 1
        yield part, gateway + 1, high
    else:
        yield stretch


def lease_in(part: Range, value: int) -> IPConfig:
    return IPConfig(Net(IP(part.subnet.family, value), part.subnet.prefix), part.gateway)


def next_free(one: RangeSet, last: IP | None, first_free: FirstFree) -> IPConfig | None:
    """The address whose turn it is after `last`; None where the set is exhausted."""
    for stretch in _round(one, last):
        for part, low, high in _around_gateway(stretch):
            value = first_free(part.subnet.family, low, high) if low <= high else None
            if value is not None:
                return lease_in(part, value)
    return None


def assign(sets: Sequence[RangeSet], requested: Sequence[IP]) -> tuple[IPConfig | None, ...]:
    """For each set the requested address that it has to lease, each request going to the first set that holds it.

    Raises InvalidConfig: a request is a gateway, or no set (any more) can serve it.
    """
    holders = Holders(sets)
    first: dict[int, tuple[IP, Range]] = {}
    left: list[IP] = []
    for ip in dict.fromkeys(requested):
        found = holders.find(ip)
        if found is None or found[0] in first:
            left.append(ip)
        else:
            first[found[0]] = ip, found[1]
    for position, (ip, part) in sorted(first.items()):
        if ip == part.gateway:
            raise InvalidConfig(
                f"failed to allocate for range {position}: requested ip {ip.text} is subnet's gateway",
                f"{sets[position].where} leases {sets[position].text} without {ip.text}",
            )
    if left:
        ranges = "; ".join([f"{one.where} {one.text}" for one in sets])
        named = " ".join([ip.text for ip in left])
        raise InvalidConfig(f"failed to allocate all requested IPs: {named}", f"one address of each set: {ranges}")
    wanted = [first.get(position) for position in range(len(sets))]
    return tuple([None if one is None else lease_in(one[1], one[0].value) for one in wanted])
