"""Connections of an address that gets another holder: the table lets known connections pass, so they have to end.

The kernel searches all its connections for those of an address, which takes milliseconds. So they end when a pod is
gone; an ADD waits for that only if it comes before, or if the address had connections when podwired started. Between
two holders none can become known, since nobody replies.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from errno import ENOENT
from typing import TYPE_CHECKING

from cni.kernel import connections
from cni.kernel.conntrack import LACKING
from cni.kernel.netlink import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.netlink import Netlink


class Connections:
    """The connections of this node's addresses, as far as one may have some of an earlier holder."""

    def __init__(self, netfilter: Netlink) -> None:
        self._netfilter = netfilter
        self._first: array[int] | None = None  # hashes of the ends of those that were there at the start, sorted
        self._used: dict[bytes, bool] = {}  # since the start: False if those of the last holder have ended
        self._waiting: list[bytes] = []  # addresses without a holder

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def begin(self) -> None:
        """Looks once which addresses have connections. Raises NetlinkError, OSError, OperationFailed."""
        if self._first is not None:
            return
        ends = set[int]()
        try:
            for _, answer in self._netfilter.parts(*connections.all_connections()):
                ends.update(map(hash, connections.ends_of(answer) if answer else ()))
        except NetlinkError as error:
            if error.errno not in LACKING:
                raise
        self._first = array("q", sorted(ends))

    def use(self, addresses: Iterable[bytes]) -> None:
        """Takes in that addresses have a holder."""
        for address in addresses:
            self._used[address] = True
            if address in self._waiting:
                self._waiting.remove(address)

    def claim(self, address: bytes) -> None:
        """Takes in a new holder, and ends the connections of earlier ones first. Raises Interrupted, and as `begin`."""
        self.begin()  # an ADD may be heard of before anything else
        if self._used.get(address, self._was_connected(address)):
            self._end(address)
        self.use([address])

    def release(self, address: bytes) -> None:
        """Takes in that an address has no holder any more; `go_on` ends its connections."""
        if address not in self._waiting:
            self._waiting.append(address)

    def go_on(self) -> None:
        """Ends the connections of one address that is waiting. Raises as `claim`."""
        address = self._waiting.pop(0)
        self._end(address)
        self._used[address] = False

    def _was_connected(self, address: bytes) -> bool:
        assert self._first is not None
        number = hash(address)
        position = bisect_left(self._first, number)
        return self._first[position : position + 1] == array("q", [number])

    def _end(self, address: bytes) -> None:
        for dump in connections.connections_of(address):
            for answer in [answer for answer in self._dump(*dump) if address in connections.ends_of(answer)]:
                try:
                    self._netfilter.request(*connections.delete_connection(connections.parse_connection(answer)))
                except NetlinkError as error:
                    if error.errno != ENOENT:  # it has ended by itself
                        raise

    def _dump(self, kind: int, payload: bytes) -> list[bytes]:
        try:
            return self._netfilter.dump(kind, payload)
        except NetlinkError as error:
            if error.errno not in LACKING:
                raise
            return []
