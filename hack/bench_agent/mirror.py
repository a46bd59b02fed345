"""A mirror of the kernel's routes, neighbours and FDB entries, from its events."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    Key = tuple[str, bytes]

# linux/netlink.h, linux/rtnetlink.h, linux/neighbour.h
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, SO_RCVBUFFORCE = 270, 1, 33
CHANGES = (1, 3, 5, 7, 9, 11)  # groups: links, neighbours with FDB, addresses and routes of both families
NEWROUTE, DELROUTE, GETROUTE, NEWNEIGH, DELNEIGH, GETNEIGH = 24, 25, 26, 28, 29, 30
NLMSG_ERROR, NLMSG_DONE, DUMP_REQUEST = 2, 3, 0x301
AF_INET, AF_BRIDGE = 2, 7
MAIN_TABLE, PERMANENT = 254, 0x80
DST, LLADDR, GATEWAY = 1, 2, 5
HEADER, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
ROOM = 64 << 20


class Mirror:
    """Routes, neighbours and FDB entries from the kernel's events, compared with the desired ones (None: absent).

    Repeated dumps would take the locks that the agent needs.
    """

    def __init__(self) -> None:
        self.events = 0
        self.wanted: dict[Key, bytes | None] = {}
        self.wrong: set[Key] = set()
        self._entries: dict[Key, bytes] = {}
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        except PermissionError:  # in a user namespace
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        self._socket.bind((0, 0))
        for group in CHANGES:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def want(self, facts: dict[Key, bytes]) -> None:
        self.wanted |= facts
        for key in facts:
            self._compare(key)

    def ignore(self, facts: Iterable[Key]) -> None:
        for key in facts:
            self.wanted.pop(key, None)
            self.wrong.discard(key)

    def refuse(self, facts: Iterable[Key]) -> None:
        for key in facts:
            self.wanted[key] = None
            self._compare(key)

    def look(self, pause: float = 0.0) -> None:
        """Waits 20 ms for an event, then `pause` seconds for more, and reads all."""
        select.select([self._socket], [], [], 0.02)
        time.sleep(pause)
        try:
            while True:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
                self.events += 1
                self._take(data)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self.reload()  # events were lost

    def reload(self) -> None:
        """Dumps the kernel's tables."""
        self._entries.clear()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as asking:
            for kind, family in ((GETROUTE, AF_INET), (GETNEIGH, AF_INET), (GETNEIGH, AF_BRIDGE)):
                asking.send(HEADER.pack(28, kind, DUMP_REQUEST, 0, 0) + bytes([family]) + bytes(11))
                while self._take(asking.recv(1 << 16)):
                    pass
        self.wrong = {key for key, value in self.wanted.items() if self._entries.get(key) != value}

    def fault(self) -> str:
        if not self.wrong:
            return "the kernel has all entries"
        kind, address = min(self.wrong)
        return f"{len(self.wrong)} routes, neighbours or FDB entries are wrong, one is the {kind} {address.hex(':')}"

    def _compare(self, key: Key) -> None:
        if self._entries.get(key) == self.wanted[key]:
            self.wrong.discard(key)
        else:
            self.wrong.add(key)

    def _take(self, data: bytes) -> bool:
        """Returns True if more of a dump follows."""
        start, end = 0, len(data)
        while start < end:
            length, kind, _, _, _ = HEADER.unpack_from(data, start)
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                return False
            fact = fact_of(kind, data[start + 16 : start + length])
            start += (length + 3) & ~3
            if fact is None:
                continue
            key, value = fact
            if kind in (NEWROUTE, NEWNEIGH):
                self._entries[key] = value
            elif self._entries.get(key) == value or not value:  # a neighbour loses its MAC address before it goes
                self._entries.pop(key, None)
            if key in self.wanted:
                self._compare(key)
        return True


def fact_of(kind: int, body: bytes) -> tuple[Key, bytes] | None:
    """Returns the entry of a message; None for messages that are not about an agent's routes or neighbours."""
    if kind not in (NEWROUTE, DELROUTE, NEWNEIGH, DELNEIGH) or body[0] not in (AF_INET, AF_BRIDGE):
        return None
    attributes: dict[int, bytes] = {}
    start = 12
    while start + 4 <= len(body):
        length, name = ATTRIBUTE.unpack_from(body, start)
        attributes[name] = body[start + 4 : start + length]
        start += (length + 3) & ~3
    if kind in (NEWROUTE, DELROUTE):
        return (("route", attributes.get(DST, b"")), attributes.get(GATEWAY, b"")) if body[4] == MAIN_TABLE else None
    if kind == NEWNEIGH and not body[8] & PERMANENT:
        return None
    if body[0] == AF_INET:
        return ("neighbour", attributes[DST]), attributes.get(LLADDR, b"")
    if DST not in attributes or LLADDR not in attributes:
        return None
    return ("fdb", attributes[LLADDR]), attributes[DST]
