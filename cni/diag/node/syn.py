"""TCP SYNs whose checksum is complete before the kernel gets them: no interface has to add it.

The kernel leaves the checksum of its own SYNs to the interface (tcp_v4_send_check: CHECKSUM_PARTIAL), which has it
computed where it does not offer that itself. All other fields are alike, so a firewall takes both for the same.
"""

from __future__ import annotations

import os
import socket
from struct import calcsize, pack, unpack, unpack_from
from typing import TYPE_CHECKING

from cni.diag.node.checksum import checksum
from cni.diag.node.exchange import Exchange
from cni.kernel.events import ALL_BYTES, JUMP_EQUAL, RETURN, attach_filter
from cni.protocol.address import IP, address_family

if TYPE_CHECKING:
    from collections.abc import Iterable

TCP_HEADER = (
    "!HHIIBBHHH"  # ports, numbers, length in words << 4, flags, window, checksum, urgent pointer (RFC 9293, 3.1)
)
SYN, RST, ACK = 0x02, 0x04, 0x10
MASK = 0xFFFFFFFF
WINDOW, MSS = 64240, 1220  # a segment that passes any path
OPTIONS = "!BBHBBBBIIBBBB"  # MSS, SACK permitted, timestamps, NOP, window scale, in Linux's order (tcp_options_write)
LOAD_HALF, LOAD_HALF_INDEXED, LOAD_HEADER_LENGTH = 0x28, 0x48, 0xB1  # linux/bpf_common.h: BPF_H; BPF_LDX | BPF_MSH
PORT_OFFSET = 2  # of the destination port


def answered(ips: Iterable[IP], port: int, seconds: float) -> set[IP]:
    """Returns the addresses that answer such a SYN to a port in that time, most of them by RST; it returns at once when
    all do. The kernel resets a connection that is accepted. Raises OSError where no raw socket can be had.
    """
    pending = dict(enumerate(dict.fromkeys(ips)))
    replied: set[IP] = set()
    for family in sorted({ip.family for ip in pending.values()}):
        own = {number: ip for number, ip in pending.items() if ip.family == family}
        with socket.socket(address_family(family), socket.SOCK_STREAM) as reserved:
            reserved.bind(("", 0))  # so that no connection of this node has the port
            with _Syn(family, own, reserved.getsockname()[1], port) as syn:
                replied |= syn.run(seconds)
    return replied


class _Syn(Exchange[IP]):
    """SYNs of one IP version. An answer counts if it acknowledges the sequence number, which no other SYN has."""

    def __init__(self, family: int, ips: dict[int, IP], source_port: int, port: int) -> None:
        super().__init__(family, _raw_socket(family, source_port), ips)
        self._source_port, self._port, self._first = source_port, port, unpack("!I", os.urandom(4))[0]

    def _address(self, asked: IP) -> IP:
        return asked

    def _packet(self, number: int, asked: IP) -> bytes:
        source, sequence = _source(asked), self._first + number & MASK
        options = pack(OPTIONS, 2, 4, MSS, 4, 2, 8, 10, sequence, 0, 1, 3, 3, 7)
        words = (calcsize(TCP_HEADER) + len(options)) // 4
        fields = self._source_port, self._port, sequence, 0, words << 4, SYN, WINDOW
        plain = pack(TCP_HEADER, *fields, 0, 0) + options
        # The pseudo header: of IPv6 other fields are 0, and zeros do not change the sum (RFC 9293, 3.1; RFC 8200, 8.1).
        pseudo = source + asked.packed + pack("!HH", socket.IPPROTO_TCP, len(plain))
        return pack(TCP_HEADER, *fields, checksum(pseudo + plain), 0) + options

    def _number(self, data: bytes) -> int | None:
        if len(data) < calcsize(TCP_HEADER):
            return None
        port, own_port, _, acknowledged, _, flags, *_ = unpack_from(TCP_HEADER, data)
        is_answer = flags & ACK and flags & (RST | SYN) and (port, own_port) == (self._port, self._source_port)
        return acknowledged - 1 - self._first & MASK if is_answer else None


def _source(ip: IP) -> bytes:
    """Returns the address that packets to another one come from, in network byte order. Raises OSError."""
    with socket.socket(address_family(ip.family), socket.SOCK_DGRAM) as opened:
        opened.connect((ip.text, 9))
        return socket.inet_pton(address_family(ip.family), opened.getsockname()[0])


def _raw_socket(family: int, port: int) -> socket.socket:
    """Returns a socket that receives TCP to this port alone: else it would get all that the node receives. Its filter
    sees IPv4 from the header of IP, IPv6 from that of TCP (kernel net/ipv6/ip6_input.c).
    """
    raw = socket.socket(address_family(family), socket.SOCK_RAW, socket.IPPROTO_TCP)
    load = [(LOAD_HALF, 0, 0, PORT_OFFSET)]
    if family == 4:
        load = [(LOAD_HEADER_LENGTH, 0, 0, 0), (LOAD_HALF_INDEXED, 0, 0, PORT_OFFSET)]
    attach_filter(raw, [*load, (JUMP_EQUAL, 0, 1, port), (RETURN, 0, 0, ALL_BYTES), (RETURN, 0, 0, 0)])
    raw.setblocking(False)
    return raw
