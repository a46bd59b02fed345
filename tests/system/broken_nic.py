"""A network card that offers to add checksums inside of tunnels and does not: frames go from one interface to the other
and back, those of the first as such a card sends them.

Arguments: both interfaces, and the MAC address to which checksums of packets without a tunnel are not added either.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from contextlib import suppress

PACKET_IGNORE_OUTGOING, PACKET_VNET_HDR = 23, 15  # linux/if_packet.h
ETH_P_ALL, SOL_PACKET = 3, 263
HEADER, FRAME_BYTES = 10, 1 << 17  # struct virtio_net_hdr: flags first, at 6 where the sum starts (linux/virtio_net.h)
OUTER_END = 14 + 40 + 8  # of the headers Ethernet, IPv6, UDP: behind it a checksum is that of a packet in a tunnel


def card(interface: str) -> socket.socket:
    """Returns a socket for frames with the kernel's note of what is left to add, as a driver gets them."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    opened.bind((interface, ETH_P_ALL))
    return opened


def sent(data: bytes, mac: bytes) -> bytes:
    """Returns a frame as the card sends it: without the note, where it fails, so that nobody else adds the sum."""
    start = int.from_bytes(data[6:8], sys.byteorder)
    fails = start >= OUTER_END or data[HEADER : HEADER + len(mac)] == mac != b""
    return bytes(HEADER) + data[HEADER:] if data[0] and fails else data


def main(inner: str, outer: str, mac: str) -> None:
    first, second = card(inner), card(outer)
    os.write(sys.stdout.fileno(), b"joined\n")
    while True:
        readable, _, _ = select.select([first, second], [], [])
        for opened in readable:
            data = opened.recv(FRAME_BYTES)
            with suppress(OSError):  # a segment that is longer than the MTU, and is not to be cut now
                if opened is first:
                    second.send(sent(data, bytes.fromhex(mac.replace(":", ""))))
                else:
                    first.send(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
