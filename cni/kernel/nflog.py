"""Packets that rules log to a group, as far as a line about one needs them.

Kernel: include/uapi/linux/netfilter/nfnetlink_log.h. What is in a packet anybody may have written.
"""

from __future__ import annotations

from errno import EAGAIN, ENOBUFS
from socket import MSG_DONTWAIT
from struct import Struct

from cni.kernel.netlink import (
    NETLINK_NETFILTER,
    Malformed,
    Netlink,
    attribute,
    attributes,
    messages,
)
from cni.kernel.nft import BE32, NFGENMSG, name_of
from cni.protocol.address import IP
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

NFNL_SUBSYS_ULOG = 4
NFULNL_MSG_PACKET, NFULNL_MSG_CONFIG = NFNL_SUBSYS_ULOG << 8, NFNL_SUBSYS_ULOG << 8 | 1
NFULA_PAYLOAD, NFULA_PREFIX = 9, 10
NFULA_CFG_CMD, NFULA_CFG_MODE, NFULA_CFG_QTHRESH = 1, 2, 5
NFULNL_CFG_CMD_BIND = 1
NFULNL_COPY_PACKET = 2
MODE = Struct(">IBx")  # bytes of a packet, mode
COPIED_BYTES = 256  # of a packet: its headers
DATAGRAMS = 64  # read at a time

IPV4_HEADER_BYTES, IPV6_HEADER_BYTES = 20, 40
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60
EXTENSIONS = 8  # IPv6 headers between the first and the ports
TCP, UDP, SCTP = 6, 17, 132
PORTS = Struct(">HH")
U16 = Struct(">H")


class LoggedPacket(Record):
    """A packet: the prefix of the rule, addresses, the number of its protocol and the destination's port, or 0."""

    prefix: str
    source: IP
    destination: IP
    protocol: int
    port: int


class PacketLog(Netlink):
    """A socket that gets the packets of a group. A group has one reader in a network namespace."""

    def __init__(self, group: int) -> None:
        """Raises NetlinkError (EPERM, EBUSY: the group has a reader), OSError."""
        super().__init__(NETLINK_NETFILTER)
        try:
            for message in bind(group):
                self.request(*message)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[LoggedPacket]:
        """Returns packets that have come, not all at a time, and without waiting. What is malformed is left out.

        Raises OSError.
        """
        packets: list[LoggedPacket] = []
        for _ in range(DATAGRAMS):
            try:
                packets += [
                    packet
                    for kind, _, _, payload in messages(self._receive(MSG_DONTWAIT))
                    if kind == NFULNL_MSG_PACKET and (packet := parse_packet(payload)) is not None
                ]
            except Malformed:
                continue
            except OSError as error:
                if error.errno == EAGAIN:
                    break
                if error.errno != ENOBUFS:  # packets were lost, and more may wait
                    raise
        return packets


def bind(group: int) -> list[Message]:
    """Returns requests for the packets of a group, each as soon as it is logged."""
    settings = (
        attribute(NFULA_CFG_CMD, bytes([NFULNL_CFG_CMD_BIND])),
        attribute(NFULA_CFG_MODE, MODE.pack(COPIED_BYTES, NFULNL_COPY_PACKET))
        + attribute(NFULA_CFG_QTHRESH, BE32.pack(1)),
    )
    return [(NFULNL_MSG_CONFIG, 0, NFGENMSG.pack(0, 0, group) + setting) for setting in settings]


def parse_packet(data: bytes) -> LoggedPacket | None:
    """Returns None for what is neither IPv4 nor IPv6. Raises Malformed."""
    attrs = attributes(data, NFGENMSG.size)
    prefix, payload = name_of(attrs.get(NFULA_PREFIX)), attrs.get(NFULA_PAYLOAD, b"")
    version = payload[0] >> 4 if payload else 0
    if version == 4 and len(payload) >= IPV4_HEADER_BYTES:
        return _ipv4(prefix, payload)
    if version == 6 and len(payload) >= IPV6_HEADER_BYTES:
        return _ipv6(prefix, payload)
    return None


def _ipv4(prefix: str, packet: bytes) -> LoggedPacket:
    protocol, ports = packet[9], (packet[0] & 0x0F) * 4
    (fragment,) = U16.unpack_from(packet, 6)
    port = 0 if fragment & 0x1FFF or ports < IPV4_HEADER_BYTES else _port(packet, protocol, ports)
    return LoggedPacket(prefix, IP.from_packed(packet[12:16]), IP.from_packed(packet[16:20]), protocol, port)


def _ipv6(prefix: str, packet: bytes) -> LoggedPacket:
    protocol, position, is_first = packet[6], IPV6_HEADER_BYTES, True
    for _ in range(EXTENSIONS):
        if protocol not in (HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS) or len(packet) < position + 8:
            break
        following, length = packet[position], packet[position + 1]
        if protocol == FRAGMENT:
            (fragment,) = U16.unpack_from(packet, position + 2)
            is_first = is_first and not fragment >> 3
            position += 8
        else:
            position += (length + 2) * 4 if protocol == AUTHENTICATION else (length + 1) * 8
        protocol = following
    port = _port(packet, protocol, position) if is_first else 0
    return LoggedPacket(prefix, IP.from_packed(packet[8:24]), IP.from_packed(packet[24:40]), protocol, port)


def _port(packet: bytes, protocol: int, position: int) -> int:
    if protocol not in (TCP, UDP, SCTP) or len(packet) < position + PORTS.size:
        return 0
    port: int = PORTS.unpack_from(packet, position)[1]
    return port
