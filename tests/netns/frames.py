"""Frames for the tests: made by hand, sent out of a container's interface, and looked for at another one."""

from __future__ import annotations

import struct
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.machine import Machine, Pod

IPV4, ARP, VLAN, IPV6, TEST = 0x0800, 0x0806, 0x8100, 0x86DD, 0x88B5
BROADCAST = b"\xff" * 6
REQUEST, REPLY = 1, 2
MLD1, ROUTER_SOLICIT, NEIGHBOR_SOLICIT, NEIGHBOR_ADVERT, MLD2 = 131, 133, 135, 136, 143
_END = "the end"
_SECONDS = "20"
_ROOM = 100  # bytes behind a frame, for its name

_SEND = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
mac = raw.getsockname()[4]
for line in sys.stdin:
    frame = bytes.fromhex(line)
    raw.send(frame[:6] + mac + frame[6:])
"""
_LISTEN = """
import socket, sys
interface, seconds, *names = sys.argv[1:]
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind((interface, 3))
raw.settimeout(float(seconds))
print("ready", flush=True)
heard = set()
while names[0] not in heard:
    frame = raw.recv(2000)
    heard |= {name for name in names if b"<%s>" % name.encode() in frame}
print("\\n".join(sorted(heard - {names[0]})))
"""


def packed(address: str) -> bytes:
    return ip_address(address).packed


def ethernet(kind: int, payload: bytes, *, destination: bytes = BROADCAST, tags: int = 0) -> bytes:
    """Returns a frame without its source, which the sender's MAC address becomes; `tags`: VLAN tags of priority 0."""
    return destination + struct.pack("!HH", VLAN, 0) * tags + struct.pack("!H", kind) + payload


def ipv4(source: str, destination: str = "255.255.255.255") -> bytes:
    """Returns a UDP packet from port 68 to 67, as DHCP has them; what it holds is what `passing` puts behind it."""
    udp = struct.pack("!HHHH", 68, 67, 8 + _ROOM, 0)
    size = 20 + len(udp) + _ROOM
    header = struct.pack("!BBHHHBBH", 0x45, 0, size, 0, 0, 64, 17, 0) + packed(source) + packed(destination)
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + udp


def _checksum(data: bytes) -> int:
    total = int.from_bytes(data, "big") % 0xFFFF  # the sum of its 16-bit words, end around
    return ~total & 0xFFFF


def arp(operation: int, sender: str, target: str) -> bytes:
    mac = b"\x02\0\0\0\0\x66"
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + mac + packed(sender) + bytes(6) + packed(target)


def ipv6(source: str, body: bytes = struct.pack("!HHHH", 9, 9, 8, 0), kind: int = 17) -> bytes:
    """Returns a packet to all nodes; of UDP, if its body is of no other kind."""
    return struct.pack("!IHBB", 6 << 28, len(body) + _ROOM, kind, 255) + packed(source) + packed("ff02::1") + body


def icmpv6(source: str, kind: int, target: str = "::") -> bytes:
    """Returns a message, of neighbour discovery for a target; without a checksum, which no bridge looks at."""
    return ipv6(source, struct.pack("!BBHI", kind, 0, 0, 0) + packed(target), 58)


def passing(sender: Pod, frames: Mapping[str, bytes], receiver: Machine | Pod, interface: str = "eth0") -> set[str]:
    """Sends frames, each with its name in it, and one that nothing holds up; returns the names of those before it."""
    machine = sender.machine
    enter = () if receiver is machine else ("nsenter", f"--net={receiver.path}", "--")  # type: ignore[union-attr]
    command = (sys.executable, "-I", "-S", "-c")
    listener = machine.start(*enter, *command, _LISTEN, interface, _SECONDS, _END, *frames)
    assert listener.stdout
    assert listener.stdout.readline() == "ready\n"
    sent = {**frames, _END: ethernet(TEST, b"")}
    lines = [(frame + f"<{name}>".encode().ljust(_ROOM, b"\0")).hex() for name, frame in sent.items()]
    machine.run(*command, _SEND, stdin="\n".join(lines) + "\n", inside=sender)
    output, _ = listener.communicate()
    return set(output.split("\n")) - {""}
