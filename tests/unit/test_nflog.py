"""Packets as the kernel logs them: read to their ports, whatever is in them."""

from __future__ import annotations

from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.kernel.netlink import Malformed, attribute, text
from cni.kernel.nflog import (
    COPIED_BYTES,
    NFULA_PAYLOAD,
    NFULA_PREFIX,
    NFULNL_MSG_CONFIG,
    LoggedPacket,
    bind,
    parse_packet,
)
from cni.protocol.address import parse_ip
from tests.unit.strategies import PROFILE

TCP, UDP, ICMP, ICMPV6, SCTP, GRE = 6, 17, 1, 58, 132, 47
SOURCE, DESTINATION = "10.1.0.3", "10.1.0.2"
SOURCE6, DESTINATION6 = "fd00::3", "fd00::2"
PORTS = pack(">HH", 40000, 5432)


def message(packet: bytes, prefix: str = "denied-in") -> bytes:
    return bytes(4) + text(NFULA_PREFIX, prefix) + attribute(NFULA_PAYLOAD, packet)


def ipv4(protocol: int, rest: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    words = 5 + len(options) // 4
    head = pack(">BBHHHBBH", 0x40 | words, 0, 20 + len(rest), 1, fragment, 64, protocol, 0)
    return head + parse_ip(SOURCE).packed + parse_ip(DESTINATION).packed + options + rest


def ipv6(protocol: int, rest: bytes) -> bytes:
    head = pack(">IHBB", 0x60000000, len(rest), protocol, 64)
    return head + parse_ip(SOURCE6).packed + parse_ip(DESTINATION6).packed + rest


def port_of(packet: bytes) -> tuple[int, int]:
    parsed = parse_packet(message(packet))
    assert parsed is not None
    return parsed.protocol, parsed.port


@pytest.mark.parametrize("protocol", [TCP, UDP, SCTP])
def test_addresses_and_ports_are_read(protocol: int) -> None:
    assert parse_packet(message(ipv4(protocol, PORTS + bytes(16)))) == LoggedPacket(
        "denied-in", parse_ip(SOURCE), parse_ip(DESTINATION), protocol, 5432
    )
    assert parse_packet(message(ipv6(protocol, PORTS), "pending-out")) == LoggedPacket(
        "pending-out", parse_ip(SOURCE6), parse_ip(DESTINATION6), protocol, 5432
    )


def test_options_and_extension_headers_are_passed() -> None:
    assert port_of(ipv4(UDP, PORTS, options=bytes(8))) == (UDP, 5432)
    hop_by_hop, options = bytes([60, 0]) + bytes(6), bytes([51, 1]) + bytes(14)
    authentication, first = bytes([44, 1]) + bytes(10), bytes([TCP, 0, 0, 1]) + bytes(4)
    assert port_of(ipv6(0, hop_by_hop + options + authentication + first + PORTS)) == (TCP, 5432)


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (ipv4(ICMP, bytes(8)), (ICMP, 0)),
        (ipv6(ICMPV6, bytes(8)), (ICMPV6, 0)),
        (ipv4(GRE, PORTS), (GRE, 0)),
        (ipv4(UDP, PORTS, fragment=7), (UDP, 0)),
        (ipv4(UDP, PORTS, fragment=0x2000), (UDP, 5432)),  # the first of several
        (ipv6(44, bytes([UDP, 0, 0, 8]) + bytes(4) + PORTS), (UDP, 0)),
        (ipv4(TCP, PORTS[:3]), (TCP, 0)),
        (ipv6(TCP, b""), (TCP, 0)),
        (ipv6(0, bytes([TCP, 255]) + bytes(6)), (TCP, 0)),  # points behind the end
        (ipv6(0, bytes(7)), (0, 0)),
        (ipv6(0, bytes(8 * 20)), (0, 0)),  # has more headers than are followed
        (b"\x41" + ipv4(TCP, PORTS)[1:], (TCP, 0)),  # a header of four bytes
    ],
)
def test_what_has_no_port_or_not_all_of_it_has_port_0(packet: bytes, expected: tuple[int, int]) -> None:
    assert port_of(packet) == expected


@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x60" + bytes(38), b"\x45" + bytes(18), b"\x00" * 60, b"\xff" * 60])
def test_what_is_no_ip_is_no_packet(packet: bytes) -> None:
    assert parse_packet(message(packet)) is None


@settings(PROFILE)
@given(st.binary(max_size=COPIED_BYTES))
def test_any_packet_is_read_without_a_fault(packet: bytes) -> None:
    parse_packet(message(packet))


@settings(PROFILE)
@given(st.binary(max_size=64))
def test_any_message_is_read_or_malformed(data: bytes) -> None:
    try:
        parse_packet(data)
    except Malformed:
        return


def test_a_group_is_asked_for_headers_at_once() -> None:
    command, mode = bind(77)
    assert {command[0], mode[0]} == {NFULNL_MSG_CONFIG} == {4 << 8 | 1}
    assert command[2] == bytes([0, 0, 0, 77]) + bytes([5, 0, 1, 0, 1, 0, 0, 0])
    assert mode[2][4:] == (
        bytes([10, 0, 2, 0]) + COPIED_BYTES.to_bytes(4, "big") + bytes([2, 0, 0, 0]) + bytes([8, 0, 5, 0, 0, 0, 0, 1])
    )
