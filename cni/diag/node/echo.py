"""ICMP echo to many addresses at once: the kernel of a node answers, whatever runs there (RFC 792, RFC 4443)."""

from __future__ import annotations

import os
import socket
from struct import pack, unpack
from typing import TYPE_CHECKING

from cni.diag.node.checksum import checksum
from cni.diag.node.exchange import Exchange
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.protocol.address import IP

HEADER = 8  # bytes of ICMP, as of UDP
IP_HEADERS = {4: 20, 6: 40}
SMALL = 84  # bytes of a packet of ping(8)
REQUESTS, REPLIES = {4: 8, 6: 128}, {4: 0, 6: 129}
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3  # linux/in.h: set DF, ignore what is known of the path
SOL_RAW, ICMP_FILTER, ICMP6_FILTER = 255, 1, 1  # linux/icmp.h, linux/icmpv6.h
TOKEN_BYTES = 8


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


class _Echo(Exchange[Probe]):
    """The probes of one IP version under way. A reply counts if it has this process's identifier and token."""

    def __init__(self, family: int, probes: dict[int, Probe]) -> None:
        super().__init__(family, _raw_socket(family), probes)
        self._identifier, self._token = unpack("!H", os.urandom(2))[0], os.urandom(TOKEN_BYTES)

    def _address(self, asked: Probe) -> IP:
        return asked.ip

    def _packet(self, number: int, asked: Probe) -> bytes:
        data = self._token.ljust(asked.size - IP_HEADERS[self._family] - HEADER, b"\0")
        kind = REQUESTS[self._family]
        total = 0
        if self._family == 4:  # else the kernel adds it
            total = checksum(pack("!BBHHH", kind, 0, 0, self._identifier, number) + data)
        return pack("!BBHHH", kind, 0, total, self._identifier, number) + data

    def _number(self, data: bytes) -> int | None:
        if len(data) < HEADER + TOKEN_BYTES or data[HEADER : HEADER + TOKEN_BYTES] != self._token:
            return None
        kind, _, _, identifier, number = unpack("!BBHHH", data[:HEADER])
        return number if (kind, identifier) == (REPLIES[self._family], self._identifier) else None


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
