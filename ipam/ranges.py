"""Ranges of addresses and sets of them, as values: what may be leased, and what is wrong with a description.

Rules and texts are those of the reference (host-local, backend/allocator/range.go and range_set.go).
"""

from __future__ import annotations

from cni.protocol.address import IP, Net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Fault = Callable[[str, str], None]  # (key or path, what is wrong with it)


class Range(Record):
    """Addresses from start to end, both included; the gateway may lie between them and is never leased."""

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
    """An attachment gets one address out of each set; `where` is the set's JSON path."""

    where: str
    ranges: tuple[Range, ...]

    @property
    def text(self) -> str:
        return ",".join([one.text for one in self.ranges])

    @property
    def family(self) -> int:
        return self.ranges[0].subnet.family

    def range_of(self, ip: IP) -> Range | None:
        return next((one for one in self.ranges if one.contains(ip)), None)


def make_range(subnet: Net, start: IP | None, end: IP | None, gateway: IP | None, error: Fault) -> Range | None:
    """The range with its defaults filled in; None after `fault` has heard what is wrong.

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
    made = Range(subnet, start or first, end or last, gateway or first)
    sound = True
    for key, ip in (("rangeStart", made.start), ("rangeEnd", made.end)):
        if not subnet.contains(ip):
            error(key, f"{key[0].upper()}{key[1:]} {ip.text} not in network {subnet.text}")
            sound = False
    if sound and made.start.value > made.end.value:
        key = "rangeStart" if start else "rangeEnd"
        error(key, f"the range would begin at {made.start.text}, after its end {made.end.text}")
        sound = False
    if made.gateway.family != subnet.family:
        error("gateway", f"{made.gateway.text} is not of the family of {subnet.text}")
        sound = False
    return made if sound else None


def check_set(one: RangeSet, error: Fault) -> None:
    """Ranges of a set are of one family and apart from each other; `one` has at least one range."""
    if any(part.subnet.family != one.family for part in one.ranges):
        error(one.where, "mixed address families")
    for (first, part), (second, other) in _overlaps(enumerate(one.ranges)):
        earlier, later = (part, other) if first < second else (other, part)
        error(one.where, f"subnets {earlier.text} and {later.text} overlap")


def check_sets(sets: Sequence[RangeSet], error: Fault) -> None:
    """Two sets that share addresses could not both be told full."""
    every = [(index, part) for index, one in enumerate(sets) for part in one.ranges]
    pairs = [sorted((first, second)) for (first, _), (second, _) in _overlaps(every)]
    for first, second in sorted({(first, second) for first, second in pairs if first != second}):
        error(sets[second].where, f"range set {first} overlaps with {second} ({sets[first].where})")


def _overlaps(parts: Iterable[tuple[int, Range]]) -> Iterator[tuple[tuple[int, Range], tuple[int, Range]]]:
    """Each range that begins before an earlier one has ended, with that one: none where all are apart.

    In order of their beginnings, hence with as many comparisons as there are ranges.
    """
    widest: tuple[int, Range] | None = None
    for found in sorted(parts, key=lambda numbered: _beginning(numbered[1])):
        if widest is not None and found[1].overlaps(widest[1]):
            yield widest, found
        if widest is None or (found[1].subnet.family, found[1].end) > (widest[1].subnet.family, widest[1].end):
            widest = found


def _beginning(part: Range) -> tuple[int, int]:
    return part.subnet.family, part.start.value


class Holders:
    """Which set an address belongs to, of sets that are apart; found by halves."""

    def __init__(self, sets: Sequence[RangeSet]) -> None:
        every = [(_beginning(part), index, part) for index, one in enumerate(sets) for part in one.ranges]
        self._parts = sorted(every, key=lambda found: found[0])

    def find(self, ip: IP) -> tuple[int, Range] | None:
        """The set's index, and its range; None where no set holds the address."""
        low, high, wanted = 0, len(self._parts), (ip.family, ip.value)
        while low < high:
            middle = (low + high) // 2
            if self._parts[middle][0] <= wanted:
                low = middle + 1
            else:
                high = middle
        if not low or not self._parts[low - 1][2].contains(ip):
            return None
        return self._parts[low - 1][1:]
