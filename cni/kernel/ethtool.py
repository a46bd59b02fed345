"""Checksum offload of interfaces, as ethtool(8) shows and sets it."""

from __future__ import annotations

import ctypes
import fcntl
import socket
from struct import pack, unpack

SIOCETHTOOL = 0x8946  # linux/sockios.h
ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x16, 0x17  # linux/ethtool.h
NAME_BYTES, REQUEST_BYTES = 16, 40  # IFNAMSIZ, struct ifreq


def leaves_checksums(interface: str) -> bool:
    """Returns True if the kernel gives an interface packets without their checksums, which it offers to add
    (tx-checksumming). Raises OSError.
    """
    return bool(_value(interface, ETHTOOL_GTXCSUM))


def complete_checksums(interface: str) -> bool:
    """Has the kernel add the checksums of all packets before an interface gets them; returns False if it did before.
    Raises OSError.
    """
    if not leaves_checksums(interface):
        return False
    _value(interface, ETHTOOL_STXCSUM)
    return True


def _value(interface: str, command: int) -> int:
    """Returns the number in the answer to a command, which is sent with 0."""
    value = ctypes.create_string_buffer(pack("=II", command, 0), 8)  # struct ethtool_value
    request = pack(f"{NAME_BYTES}sP", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        fcntl.ioctl(opened, SIOCETHTOOL, request.ljust(REQUEST_BYTES, b"\0"))
    return int(unpack("=II", value.raw)[1])
