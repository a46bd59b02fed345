"""Connections that policies no longer allow are revoked: a label makes the table drop their packets, both ways.

If their entries were deleted, the next packet of the destination would begin the connection the other way around. That
is accepted for those alone that are older than the table's rule for labels, and cannot have any.
"""

from __future__ import annotations

import time
from errno import ENOENT, ENOSPC
from itertools import islice
from typing import TYPE_CHECKING

from cni.agent.policy.basetable import REVOKED
from cni.kernel import connections
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.agent.policy.revocation import Judge
    from cni.kernel.connections import Connection
    from cni.kernel.rtnl import Message

AT_A_TIME = 256  # connections, between two looks at the clock
MESSAGES = 64  # whose acknowledgements any socket's buffer holds
FILTER_GAIN = 25_000  # connections, which take as long to read as the kernel needs to find those of one address


class Walk:
    """A walk through the connections of some addresses, in pieces. `revoked` and `restored` count what it changes,
    `labelled` are the ends of connections that are revoked after it.
    """

    def __init__(self, netfilter: Netlink, addresses: frozenset[bytes], expected: int) -> None:
        """`expected`: how many connections there are, about. Raises OSError."""
        self.addresses = addresses
        self.is_whole = len(addresses) * FILTER_GAIN >= expected
        self.labelled = set[bytes]()
        self.seen = self.revoked = self.restored = 0
        self._netfilter, self._dumping = netfilter, Netlink(NETLINK_NETFILTER)
        self._parts = self._read()

    def close(self) -> None:
        self._dumping.close()

    def go_on(self, judge: Judge, until: float) -> bool:
        """Goes on until a moment (time.monotonic). Returns True if there is more. Raises NetlinkError, OperationFailed,
        OSError.
        """
        for part in self._parts:
            self.seen += len(part)
            answers = [answer for answer in part if not self.addresses.isdisjoint(connections.ends_of(answer))]
            self._settle(judge, map(connections.parse_connection, answers))
            if time.monotonic() >= until:
                return True
        return False

    def _read(self) -> Iterator[list[bytes]]:
        """Yields the connections, and after each dump even none: the kernel may have searched for milliseconds."""
        filtered = [dump for address in self.addresses for dump in connections.connections_of(address)]
        for dump in [connections.all_connections()] if self.is_whole else filtered:
            answers = (answer for _, answer in self._dumping.parts(*dump) if answer)
            while len(part := [*islice(answers, AT_A_TIME)]) == AT_A_TIME:
                yield part
            yield part

    def _settle(self, judge: Judge, parsed: Iterable[Connection]) -> None:
        revoked: list[Connection] = []
        restored: list[Connection] = []
        for connection in parsed:
            is_revoked = connection.has_label(REVOKED)
            allows = judge.allows(*connection.judged)
            if allows is False and connection.master:
                allows = self._allows_master(judge, connection)
            if allows is False or (is_revoked and not allows):
                self.labelled.update((connection.source, connection.destination))
            if allows is False and not is_revoked:
                revoked.append(connection)
            elif allows and is_revoked:
                restored.append(connection)
        self.revoked += sum(map(self._revoke, _parts_of(revoked)))
        for part in _parts_of(restored):
            self.restored += len(part) - len(
                self._ask([connections.set_label(connection, REVOKED, on=False) for connection in part])
            )

    def _allows_master(self, judge: Judge, connection: Connection) -> bool | None:
        """Judges the connection of which a helper expected this one (FTP, SIP), if that is still there."""
        (answer,) = self._netfilter.ask_each([connections.get_master(connection)])
        return False if isinstance(answer, NetlinkError) else judge.allows(*connections.parse_connection(answer).judged)

    def _revoke(self, part: list[Connection]) -> int:
        """Returns how many were still there."""
        without = self._ask([connections.set_label(connection, REVOKED, on=True) for connection in part])
        old = [part[position] for position, errno in without.items() if errno == ENOSPC]
        ended = self._ask([connections.delete_connection(connection) for connection in old])
        return len(part) - len(without) + len(old) - len(ended)

    def _ask(self, messages: list[Message]) -> dict[int, int]:
        """Returns the errors by position: the connection has ended, or cannot have labels. Raises the others."""
        errors = {}
        for position, answer in enumerate(self._netfilter.ask_each(messages) if messages else ()):
            if isinstance(answer, NetlinkError):
                if answer.errno not in (ENOENT, ENOSPC):
                    raise answer
                errors[position] = answer.errno
        return errors


def _parts_of(whole: list[Connection]) -> Iterator[list[Connection]]:
    for start in range(0, len(whole), MESSAGES):
        yield whole[start : start + MESSAGES]
