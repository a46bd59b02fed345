"""The kernel's multicast messages about changes (rtnetlink(7)), as they come.

The echo of own changes is dropped before it is queued: thousands would overflow the socket. For changes of forwarding
databases the kernel does not name the sender (drivers/net/vxlan, vxlan_fdb_notify), so these are echoed.
"""

from __future__ import annotations

import ctypes
from errno import EAGAIN, ENOBUFS
from socket import MSG_DONTWAIT, SO_RCVBUF, SOL_SOCKET, htonl
from struct import Struct
from typing import TYPE_CHECKING

from cni.kernel.netlink import SOL_NETLINK, Malformed, Netlink, messages

if TYPE_CHECKING:
    from _socket import socket

NETLINK_ADD_MEMBERSHIP = 1
RTNLGRP_LINK, RTNLGRP_NEIGH = 1, 3
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 5, 7, 9, 11
NFNLGRP_NFTABLES = 7
QUEUE_BYTES = 1 << 22
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33  # asm-generic/socket.h

INSTRUCTION = Struct("=HBBI")  # struct sock_filter (linux/filter.h): code, jump if true, if false, operand
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
PORT_OFFSET = 12  # of the sender's port in struct nlmsghdr
ALL_BYTES = 0xFFFFFFFF


class Overflowed(Exception):
    """Messages were lost: the changes are unknown."""


class Events(Netlink):
    """A socket for changes in the namespace in which it was opened, except those that `own` requested."""

    def __init__(self, protocol: int, groups: tuple[int, ...], own: Netlink | None = None) -> None:
        super().__init__(protocol)
        try:
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
        except PermissionError:  # without root the administrator's limit holds
            self._socket.setsockopt(SOL_SOCKET, SO_RCVBUF, QUEUE_BYTES)
        if own is not None:
            self._ignore(own.port)
        for group in groups:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)

    def _ignore(self, port: int) -> None:
        """Attaches a filter that drops messages with this port. It sees words in network order."""
        attach_filter(
            self._socket,
            [
                (LOAD_WORD, 0, 0, PORT_OFFSET),
                (JUMP_EQUAL, 0, 1, htonl(port)),
                (RETURN, 0, 0, 0),
                (RETURN, 0, 0, ALL_BYTES),
            ],
        )

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[tuple[int, bytes]]:
        """Returns (type, payload) of all queued messages, without waiting. Raises Overflowed."""
        notifications: list[tuple[int, bytes]] = []
        while True:
            try:
                notifications += [(kind, payload) for kind, _, _, payload in messages(self._receive(MSG_DONTWAIT))]
            except Malformed:
                raise Overflowed from None
            except OSError as error:
                if error.errno == EAGAIN:
                    return notifications
                if error.errno == ENOBUFS:
                    raise Overflowed from None
                raise


def attach_filter(receiver: socket, program: list[tuple[int, int, int, int]]) -> None:
    """Attaches a program of classic BPF, whose result is the bytes that a packet keeps (socket(7), SO_ATTACH_FILTER);
    the kernel copies it. Raises OSError.
    """
    data = b"".join([INSTRUCTION.pack(*instruction) for instruction in program])
    held = ctypes.create_string_buffer(data, len(data))
    header = Struct("HP").pack(len(program), ctypes.addressof(held))
    receiver.setsockopt(SOL_SOCKET, SO_ATTACH_FILTER, header)
