"""Ports of other nodes: who refuses a connection answers, too."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cni.protocol.address import address_family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.protocol.address import IP

CLOSED_PORT = 9  # discard: nobody listens there any more
ANSWERS = (0, errno.ECONNREFUSED)  # of the node itself; other errors come from those between
BAD_VXLAN = bytes(8)  # a header without the flag I, which is dropped (RFC 7348, 5)


def answering(ips: Iterable[IP], seconds: float) -> set[IP]:
    """Returns the addresses that answer a TCP connection, most of them by refusing it."""
    return {ip for ip, error in connection_errors(ips, seconds).items() if error in ANSWERS}


def connection_errors(ips: Iterable[IP], seconds: float) -> dict[IP, int]:
    """Returns errno of a TCP connection by address, 0 if it is accepted; who is silent is left out. An address that is
    given several times is asked as often.
    """
    return _errors(ips, socket.SOCK_STREAM, CLOSED_PORT, b"", seconds)


def refusals(ips: Iterable[IP], port: int, seconds: float) -> dict[IP, str]:
    """Returns the error by address that a datagram to a UDP port gets; who has an open port stays silent."""
    errors = _errors(ips, socket.SOCK_DGRAM, port, BAD_VXLAN, seconds)
    return {ip: os.strerror(error) for ip, error in errors.items() if error}


def _errors(ips: Iterable[IP], kind: int, port: int, data: bytes, seconds: float) -> dict[IP, int]:
    """Returns errno by address, 0 for a connection; addresses that do not answer in that time are left out."""
    errors: dict[IP, int] = {}
    with ExitStack() as end:
        sockets = {}
        poll = select.poll()
        for ip in ips:
            opened = end.enter_context(socket.socket(address_family(ip.family), kind))
            opened.setblocking(False)
            if (error := _begin(opened, ip, port, data)) != errno.EINPROGRESS:
                errors[ip] = error
                continue
            poll.register(opened, 0 if data else select.POLLOUT)  # an error is reported in any case
            sockets[opened.fileno()] = ip, opened
        limit = time.monotonic() + seconds
        while sockets and (left := limit - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                poll.unregister(descriptor)
                ip, opened = sockets.pop(descriptor)
                errors[ip] = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errors


def _begin(opened: socket.socket, ip: IP, port: int, data: bytes) -> int:
    """Returns EINPROGRESS, or the error that comes at once."""
    try:
        opened.connect((ip.text, port))
        if data:
            opened.send(data)
            return errno.EINPROGRESS
    except OSError as error:
        return error.errno or errno.EIO
    return 0
