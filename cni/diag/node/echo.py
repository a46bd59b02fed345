"""ICMP echo to many addresses at once: the kernel of a node answers, whatever runs there (RFC 792, RFC 4443)."""

from __future__ import annotations

import os
import selectors
import socket
import time
from contextlib import suppress
from struct import pack, unpack
from typing import TYPE_CHECKING, Self

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.protocol.address import IP

HEADER = 8  # bytes of ICMP, as of UDP
IP_HEADERS = {4: 20, 6: 40}
SMALL = 84  # bytes of a packet of ping(8)
REQUESTS, REPLIES = {4: 8, 6: 128}, {4: 0, 6: 129}
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3  # linux/in.h: set DF, ignore what is known of the path
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1  # linux/icmp.h, linux/icmpv6.h
TOKEN_BYTES = 8
TIMES = 3  # that a packet is sent until it is answered
AT_ONCE = 32  # packets between two looks at answers, so that the socket's buffer holds these


class Probe(Record):
    """A packet of `size` bytes, with the header of IP, that may not be fragmented."""

    ip: IP
    size: int = SMALL


def answered(probes: Iterable[Probe], seconds: float) -> set[Probe]:
    """Returns the probes that were answered in that time; it returns at once when all were. Raises OSError where no raw
    socket can be had.
    """
    pending = dict(enumerate(dict.fromkeys(probes)))
    replied: set[Probe] = set()
    for family in sorted({probe.ip.family for probe in pending.values()}):
        own = {number: probe for number, probe in pending.items() if probe.ip.family == family}
        with _Echo(family, own) as echo:
            replied |= echo.run(seconds)
    return replied


class _Echo:
    """The probes of one IP version under way. A reply counts if it comes from the address that was asked, with this
    process's identifier and token.
    """

    def __init__(self, family: int, probes: dict[int, Probe]) -> None:
        self._family, self._pending = family, dict(probes)
        self._replied: set[Probe] = set()
        self._identifier, self._token = unpack("!H", os.urandom(2))[0], os.urandom(TOKEN_BYTES)
        self._socket = _raw_socket(family)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._socket.close()

    def run(self, seconds: float) -> set[Probe]:
        for _ in range(TIMES):
            end = time.monotonic() + seconds / TIMES
            numbers = list(self._pending)
            for start in range(0, len(numbers), AT_ONCE):
                self._send(numbers[start : start + AT_ONCE])
                self._receive(0)
            while self._pending and (left := end - time.monotonic()) > 0:
                self._receive(left)
        return self._replied

    def _send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            probe = self._pending.get(number)
            if probe is not None:
                with suppress(OSError):  # no route, a full buffer, a filter: not answered
                    self._socket.sendto(self._packet(number, probe), (probe.ip.text, 0))

    def _packet(self, number: int, probe: Probe) -> bytes:
        data = self._token.ljust(probe.size - IP_HEADERS[self._family] - HEADER, b"\0")
        kind = REQUESTS[self._family]
        checksum = 0
        if self._family == 4:  # else the kernel adds it
            checksum = _checksum(pack("!BBHHH", kind, 0, 0, self._identifier, number) + data)
        return pack("!BBHHH", kind, 0, checksum, self._identifier, number) + data

    def _receive(self, seconds: float) -> None:
        """Takes in all answers that are there, after waiting for the first."""
        if not self._selector.select(seconds):
            return
        while self._pending:
            try:
                data, address = self._socket.recvfrom(1 << 16)
            except OSError:  # there is none
                return
            self._take(data, str(address[0]))

    def _take(self, data: bytes, source: str) -> None:
        if self._family == 4:
            data = data[(data[0] & 0x0F) * 4 :]
        if len(data) < HEADER + TOKEN_BYTES or data[HEADER : HEADER + TOKEN_BYTES] != self._token:
            return
        kind, _, _, identifier, number = unpack("!BBHHH", data[:HEADER])
        probe = self._pending.get(number)
        if (kind, identifier) == (REPLIES[self._family], self._identifier) and probe and probe.ip.text == source:
            self._replied.add(self._pending.pop(number))


def _raw_socket(family: int) -> socket.socket:
    """Returns a socket that receives echo replies alone and sends packets that are not to be fragmented."""
    if family == 4:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        raw.setsockopt(SOL_RAW, ICMP_FILTER, pack("=I", 0xFFFFFFFF ^ 1 << REPLIES[4]))
        raw.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    else:
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8
        blocked[REPLIES[6] >> 5] ^= 1 << (REPLIES[6] & 31)
        raw.setsockopt(socket.IPPROTO_ICMPV6, ICMP6_FILTER, pack("=8I", *blocked))
        raw.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    raw.setblocking(False)
    return raw


def _checksum(data: bytes) -> int:
    """Returns the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
