"""Offloads of an interface, as ethtool(8) shows them."""

from __future__ import annotations

import ctypes
import fcntl
import socket
from contextlib import suppress
from struct import pack, unpack

SIOCETHTOOL, ETHTOOL_GTXCSUM = 0x8946, 0x16  # linux/sockios.h, linux/ethtool.h
NAME_BYTES = 16  # IFNAMSIZ


def leaves_checksums(interface: str) -> bool:
    """Returns True if the kernel gives an interface packets without their checksums, which it offers to add
    (tx-checksumming); False if it is gone.
    """
    value = ctypes.create_string_buffer(pack("=II", ETHTOOL_GTXCSUM, 0), 8)  # struct ethtool_value
    request = pack(f"{NAME_BYTES}sP", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened, suppress(OSError):
        fcntl.ioctl(opened, SIOCETHTOOL, request.ljust(40, b"\0"))  # struct ifreq
    return bool(unpack("=II", value.raw)[1])
