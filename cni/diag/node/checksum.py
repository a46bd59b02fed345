"""The checksum of IP, ICMP, UDP and TCP."""

from __future__ import annotations

from struct import unpack


def checksum(data: bytes) -> int:
    """Returns the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
