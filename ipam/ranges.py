"""Ranges of addresses and sets of them as values, with their checks.

Rules and messages are those of the reference (host-local, backend/allocator/range.go and range_set.go).
"""

from __future__ import annotations

from cni.protocol.address import IP, Net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    AddError = Callable[[str, str], None]  # (key or path, message)


class Range(Record):
    """The addresses from start to end, both included; the gateway may be one of them and is never leased."""

    subnet: Net
    start: IP
    end: IP
    gateway: IP

    @property
    def text(self) -> str:
        return f"{self.start.text}-{self.end.text}"

    def contains(self, ip: IP) -> bool:
        return ip.family == self.subnet.family and self.start.value <= ip.value <= self.end.value

    def overlaps(self, other: Range) -> bool:
        return self.contains(other.start) or other.contains(self.start)


class RangeSet(Record):
    """A set of ranges, of which an attachment gets one address; `path` is its JSON path."""

    path: str
    ranges: tuple[Range, ...]

    @property
    def text(self) -> str:
        return ",".join([part.text for part in self.ranges])

    @property
    def family(self) -> int:
        return self.ranges[0].subnet.family

    def range_of(self, ip: IP) -> Range | None:
        return next((part for part in self.ranges if part.contains(ip)), None)


def make_range(subnet: Net, start: IP | None, end: IP | None, gateway: IP | None, error: AddError) -> Range | None:
    """Returns the range with its defaults; None if it is invalid, after calls of `error`.

    Defaults: gateway and start are the subnet's first address, end its last (in IPv4 the one before the broadcast).
    """
    network = subnet.network
    if subnet.prefix > subnet.ip.bits - 2:
        error("subnet", f"Network {subnet.text} too small to allocate from")
        return None
    if subnet != network:
        reason = f"For a subnet mask of length {subnet.prefix} the network address is {network.ip.text}"
        error("subnet", f"Network has host bits set. {reason}")
        return None
    first = IP(subnet.family, subnet.ip.value + 1)
    last = subnet.last if subnet.family == 6 else IP(4, subnet.last.value - 1)
    result = Range(subnet, start or first, end or last, gateway or first)
    valid = True
    for key, ip in (("rangeStart", result.start), ("rangeEnd", result.end)):
        if not subnet.contains(ip):
            error(key, f"{key[0].upper()}{key[1:]} {ip.text} not in network {subnet.text}")
            valid = False
    if valid and result.start.value > result.end.value:
        key = "rangeStart" if start else "rangeEnd"
        error(key, f"range start {result.start.text} is after range end {result.end.text}")
        valid = False
    if result.gateway.family != subnet.family:
        error("gateway", f"{result.gateway.text} is not of the family of {subnet.text}")
        valid = False
    return result if valid else None


def check_set(range_set: RangeSet, error: AddError) -> None:
    """Checks that the ranges of a set have one family and do not overlap. The set has at least one range."""
    if any(part.subnet.family != range_set.family for part in range_set.ranges):
        error(range_set.path, "mixed address families")
    for (first, part), (second, other) in _overlaps(enumerate(range_set.ranges)):
        earlier, later = (part, other) if first < second else (other, part)
        error(range_set.path, f"subnets {earlier.text} and {later.text} overlap")


def check_sets(sets: Sequence[RangeSet], error: AddError) -> None:
    """Checks that sets do not overlap: if they shared addresses, it would be unknown which one is exhausted."""
    numbered = [(index, part) for index, range_set in enumerate(sets) for part in range_set.ranges]
    pairs = [sorted((first, second)) for (first, _), (second, _) in _overlaps(numbered)]
    for first, second in sorted({(first, second) for first, second in pairs if first != second}):
        error(sets[second].path, f"range set {first} overlaps with {second} ({sets[first].path})")


def _overlaps(parts: Iterable[tuple[int, Range]]) -> Iterator[tuple[tuple[int, Range], tuple[int, Range]]]:
    """Yields each range that starts before an earlier one has ended, after that one; nothing if no ranges overlap.

    They are compared in the order of their starts: as many comparisons as ranges.
    """
    widest: tuple[int, Range] | None = None
    for current in sorted(parts, key=lambda numbered: _start(numbered[1])):
        if widest is not None and current[1].overlaps(widest[1]):
            yield widest, current
        if widest is None or (current[1].subnet.family, current[1].end) > (widest[1].subnet.family, widest[1].end):
            widest = current


def _start(part: Range) -> tuple[int, int]:
    return part.subnet.family, part.start.value


class SetIndex:
    """An index from addresses to the sets that contain them, by binary search. The sets do not overlap."""

    def __init__(self, sets: Sequence[RangeSet]) -> None:
        parts = [(_start(part), index, part) for index, range_set in enumerate(sets) for part in range_set.ranges]
        self._parts = sorted(parts, key=lambda entry: entry[0])

    def find(self, ip: IP) -> tuple[int, Range] | None:
        """Returns the set's position and the range; None if no set contains the address."""
        low, high, key = 0, len(self._parts), (ip.family, ip.value)
        while low < high:
            middle = (low + high) // 2
            if self._parts[middle][0] <= key:
                low = middle + 1
            else:
                high = middle
        if not low or not self._parts[low - 1][2].contains(ip):
            return None
        return self._parts[low - 1][1:]
