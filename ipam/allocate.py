"""The choice of an attachment's address: round robin through a range set, or the requested address (pure).

Round robin starts after the address leased last, so that a container in a crash loop does not get its old address
again until the whole set has been used (reference: backend/allocator/allocator.go, GetIter).
"""

from __future__ import annotations

from cni.protocol.address import IP, Net
from cni.protocol.errors import InvalidConfig
from cni.protocol.result import IPConfig
from ipam.ranges import SetIndex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ipam.ranges import Range, RangeSet

    FirstFree = Callable[[int, int, int], int | None]  # (family, low, high) -> lowest value not leased, ends included
    Span = tuple[Range, int, int]


def _round_robin(range_set: RangeSet, last: IP | None) -> Iterator[Span]:
    """Yields every address of the set once, as spans in the order of allocation: the first one is after `last`."""
    ranges = range_set.ranges
    position = next((index for index, part in enumerate(ranges) if last and part.contains(last)), None)
    if position is None or last is None:
        for part in ranges:
            yield part, part.start.value, part.end.value
        return
    current = ranges[position]
    yield current, last.value + 1, current.end.value
    for part in ranges[position + 1 :] + ranges[:position]:
        yield part, part.start.value, part.end.value
    yield current, current.start.value, last.value


def _without_gateway(span: Span) -> Iterator[Span]:
    part, low, high = span
    gateway = part.gateway.value
    if low <= gateway <= high:
        yield part, low, gateway - 1
        yield part, gateway + 1, high
    else:
        yield span


def lease_in(part: Range, value: int) -> IPConfig:
    return IPConfig(Net(IP(part.subnet.family, value), part.subnet.prefix), part.gateway)


def next_free(range_set: RangeSet, last: IP | None, first_free: FirstFree) -> IPConfig | None:
    """Returns the first free address after `last`; None if the set is exhausted."""
    for span in _round_robin(range_set, last):
        for part, low, high in _without_gateway(span):
            value = first_free(part.subnet.family, low, high) if low <= high else None
            if value is not None:
                return lease_in(part, value)
    return None


def assign(sets: Sequence[RangeSet], requested: Sequence[IP]) -> tuple[IPConfig | None, ...]:
    """Returns for each set the requested address that it has to lease, or None. Each set serves one request.

    Raises InvalidConfig: a request is a gateway, or no set without another request contains it.
    """
    index = SetIndex(sets)
    assigned: dict[int, tuple[IP, Range]] = {}
    unassigned: list[IP] = []
    for ip in dict.fromkeys(requested):
        place = index.find(ip)
        if place is None or place[0] in assigned:
            unassigned.append(ip)
        else:
            assigned[place[0]] = ip, place[1]
    for position, (ip, part) in sorted(assigned.items()):
        if ip == part.gateway:
            raise InvalidConfig(
                f"failed to allocate for range {position}: requested ip {ip.text} is subnet's gateway",
                f"{sets[position].path} leases {sets[position].text} without {ip.text}",
            )
    if unassigned:
        ranges = "; ".join([f"{range_set.path} {range_set.text}" for range_set in sets])
        addresses = " ".join([ip.text for ip in unassigned])
        raise InvalidConfig(f"failed to allocate all requested IPs: {addresses}", f"one address of each set: {ranges}")
    choices = [assigned.get(position) for position in range(len(sets))]
    return tuple([None if choice is None else lease_in(choice[1], choice[0].value) for choice in choices])
