"""The probe: one connection attempt, datagram or echo request, sent from inside the container's network namespace."""

from __future__ import annotations

import os
import socket
import struct
from errno import EINPROGRESS
from typing import TYPE_CHECKING

from cni.diag.node.checksum import checksum
from cni.diag.path.ends import ICMP, SCTP, TCP, UDP
from cni.effects.journal import error_text
from cni.protocol.address import address_family
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.diag.path.ends import Connection
    from cni.effects.host import Host

TCP_SYNCNT = 7  # include/uapi/linux/tcp.h
TRIES = 1  # SYNs that are sent again
KINDS = {TCP: (socket.SOCK_STREAM, 6), UDP: (socket.SOCK_DGRAM, 17), SCTP: (socket.SOCK_STREAM, 132)}
PAYLOAD = b"podwire trace"
ECHO = {4: (8, 0, 1), 6: (128, 129, 58)}  # request, reply, protocol (RFC 792, RFC 4443)
HEADER = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence number
RECEIVE_BYTES = 2048
NO_LINGER = struct.pack("ii", 1, 0)  # a connection ends by RST: two packets fewer


class Answer(Record):
    """The answer to a probe. `passes`: the destination takes the connection; `text` is for people. `is_sent` is False
    where the container's own kernel has refused to send it.
    """

    passes: bool
    text: str
    is_sent: bool = True


class Probe:
    """A socket of the container that sends one probe. `number` is the source port, for ICMP the identifier."""

    def __init__(self, host: Host, path: Connection) -> None:
        """Binds the socket in the container's namespace, which `host` has opened. Raises OSError, InvalidNetns."""
        self._path = path
        family = address_family(path.family)
        kind, self.protocol = KINDS.get(path.protocol, (socket.SOCK_RAW, ECHO[path.family][2]))
        with host.in_container:
            self.socket = socket.socket(family, kind, self.protocol)
        try:
            self.socket.setblocking(False)
            if path.protocol == TCP:
                self.socket.setsockopt(socket.IPPROTO_TCP, TCP_SYNCNT, TRIES)
            self.socket.bind((path.source_ip.text, 0))
            self.number: int = os.getpid() & 0xFFFF if path.protocol == ICMP else self.socket.getsockname()[1]
        except OSError:
            self.socket.close()
            raise

    def close(self) -> None:
        if self._path.protocol == TCP:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.socket.close()

    @property
    def waits_to_write(self) -> bool:
        """Returns True if the answer makes the socket writable, else readable."""
        return self._path.protocol in (TCP, SCTP)

    def send(self) -> str:
        """Sends the probe; returns why it could not leave the container, empty if it did."""
        path = self._path
        try:
            error = self.socket.connect_ex((path.target_ip.text, path.port))
            if error not in (0, EINPROGRESS):
                return os.strerror(error)
            if path.protocol == UDP:
                self.socket.send(PAYLOAD)
            elif path.protocol == ICMP:
                self.socket.send(self._echo())
        except OSError as refusal:
            return error_text(refusal)
        return ""

    def _echo(self) -> bytes:
        """Returns an echo request; the kernel adds the checksum of ICMPv6."""
        request = ECHO[self._path.family][0]
        plain = HEADER.pack(request, 0, 0, self.number, 1) + PAYLOAD
        return HEADER.pack(request, 0, checksum(plain), self.number, 1) + PAYLOAD

    def answer(self) -> Answer | None:
        """Returns what has come back; None if it is not about the probe, as another process's echo."""
        path = self._path
        if self.waits_to_write:
            error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return Answer(not error, os.strerror(error) if error else "connected")
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            return Answer(passes=False, text=error_text(error))
        if path.protocol == UDP:
            return Answer(passes=True, text=f"a datagram of {len(data)} bytes")
        if path.family == 4:
            data = data[(data[0] & 0x0F) * 4 :] if data else b""
        if len(data) < HEADER.size:
            return None
        kind, _, _, identifier, _ = HEADER.unpack_from(data)
        is_reply = kind == ECHO[path.family][1] and identifier == self.number
        return Answer(passes=True, text="echo reply") if is_reply else None
