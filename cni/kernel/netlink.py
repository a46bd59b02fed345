"""Netlink messages and sockets (RFC 3549; kernel include/uapi/linux/netlink.h): framing, attributes, answers.

A closed set of messages needs no library: pyroute2 costs 130 ms to import. Tests hold every message to pyroute2's.
"""

from __future__ import annotations

from _struct import Struct
from errno import EAGAIN, ENOBUFS
from posix import strerror

from cni.protocol.errors import OperationFailed

try:
    from _socket import MSG_TRUNC, SO_RCVTIMEO, SOCK_CLOEXEC, SOCK_RAW, SOL_SOCKET, socket
except ImportError:
    from socket import (  # type: ignore[assignment]  # the same, with a wrapper
        MSG_TRUNC,
        SO_RCVTIMEO,
        SOCK_CLOEXEC,
        SOCK_RAW,
        SOL_SOCKET,
        socket,
    )

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from cni.protocol.address import IP

AF_NETLINK = 16
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 7, 8, 32, 33  # asm-generic/socket.h
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = Struct("=HH")  # length, type
ERROR = Struct("=i")
U8, U32 = Struct("=B"), Struct("=I")
TIMEVAL = Struct("@ll")  # seconds, microseconds

RECEIVE_BYTES = 1 << 16  # a dump's answers come in pieces of at most 32 KiB (net/netlink/af_netlink.c)
LARGE_BYTES = 1 << 16  # of a datagram, beyond which the usual buffers may not hold it, or its acknowledgements
ACKNOWLEDGEMENT_BYTES = 2048  # in the kernel's accounts
DUMP_TRIES = 8
ANSWER_SECONDS = 10  # the kernel answers while it is asked; this bounds the wait for an answer that was lost


class NetlinkError(Exception):
    """The kernel's error for one message: errno, and its text (extended acknowledgement) if it sent one. `position`:
    the message's in a batch.
    """

    def __init__(self, errno: int, text: str, position: int = 0) -> None:
        super().__init__(errno, text)
        self.errno = errno
        self.text = text
        self.position = position

    def __str__(self) -> str:
        return f"{strerror(self.errno)} ({self.text})" if self.text else strerror(self.errno)


class Interrupted(Exception):
    """A dump was inconsistent at every attempt."""


class Malformed(OperationFailed):
    """An answer that is not valid netlink: every decoder raises this, and nothing else."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"netlink: malformed message: {problem}")


def attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length & 3)


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, U8.pack(value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """Returns an attribute with a string and its NUL."""
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def address(kind: int, value: IP) -> bytes:
    return attribute(kind, value.packed)


def nest(kind: int, *attributes: bytes, flag: int = 0) -> bytes:
    """Returns nested attributes: rtnetlink takes them without the flag, nfnetlink requires NLA_F_NESTED."""
    return attribute(kind | flag, b"".join(attributes))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Returns payloads by attribute type; of a repeated attribute the last."""
    return dict(each_attribute(data, start))


def each_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields (type, payload); less than a header at the end is padding (kernel nla_ok). Raises Malformed."""
    end = len(data)
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            raise Malformed(f"attribute of length {length}, with {end - start} bytes left")
        yield kind & NLA_TYPE_MASK, data[start + 4 : start + length]
        start += (length + 3) & ~3


def unpacked(layout: Struct, data: bytes, start: int = 0) -> tuple[Any, ...]:
    """Returns the fields of a structure that may be longer in other kernels. Raises Malformed if it is shorter."""
    if len(data) - start < layout.size:
        raise Malformed(f"{len(data) - start} bytes where there should be {layout.size}")
    return layout.unpack_from(data, start)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yields (type, flags, sequence, payload) of each message of a datagram. Raises Malformed."""
    position, end = 0, len(data)
    while position < end:
        length, kind, flags, sequence, _ = unpacked(HEADER, data, position)
        if length < HEADER.size or position + length > end:
            raise Malformed(f"message of length {length}, with {end - position} bytes left")
        yield kind, flags, sequence, data[position + HEADER.size : position + length]
        position += (length + 3) & ~3


def frame(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return HEADER.pack(16 + len(payload), kind, flags, sequence, 0) + payload


def refusal_of(flags: int, payload: bytes) -> NetlinkError | None:
    """Reads an NLMSG_ERROR: the negative errno, the echoed header, and perhaps a text; None for errno 0. Raises
    Malformed.
    """
    (code,) = unpacked(ERROR, payload)
    if code == 0:
        return None
    text = ""
    if flags & NLM_F_ACK_TLVS:
        (echoed,) = unpacked(U32, payload, 4)
        start = 20 if flags & NLM_F_CAPPED else 4 + ((echoed + 3) & ~3)
        text = attributes(payload, start).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")
    return NetlinkError(-code, text)


class Netlink:
    """A socket of one protocol, in the network namespace in which it was opened.

    A root user of that namespace, who is unprivileged on the host, may send to any socket there. So this one is
    connected to the kernel, which then rejects messages of other senders (net/netlink/af_netlink.c): they do not fill
    the queue.
    """

    def __init__(self, protocol: int) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._socket.setsockopt(SOL_SOCKET, SO_RCVTIMEO, TIMEVAL.pack(ANSWER_SECONDS, 0))
        self._socket.connect((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """The socket's port ID, by which multicast messages name the sender of a change."""
        number: int = self._socket.getsockname()[0]
        return number

    def _receive(self, flags: int = 0) -> bytes:
        """Returns the next datagram of the kernel, whose port is 0. Raises Malformed, OSError."""
        while True:
            data, _, given, sender = self._socket.recvmsg(RECEIVE_BYTES, 0, flags)
            if sender[0] != 0:
                continue
            if given & MSG_TRUNC:
                raise Malformed(f"longer than {RECEIVE_BYTES} bytes")
            return bytes(data)

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yields the messages of the next datagrams, without end. Raises Malformed, OperationFailed, OSError."""
        while True:
            try:
                data = self._receive()
            except OSError as error:
                if error.errno != EAGAIN:
                    raise
                raise OperationFailed(f"netlink: no answer from the kernel within {ANSWER_SECONDS} s") from None
            yield from messages(data)

    def request(self, kind: int, flags: int, payload: bytes) -> None:
        """Sends one message and waits for its acknowledgement. Raises NetlinkError, OSError."""
        self._answer(kind, flags | NLM_F_ACK, payload)

    def ask(self, kind: int, flags: int, payload: bytes) -> bytes:
        """Sends one request and returns its one answer. Raises NetlinkError, OSError."""
        return self._answer(kind, flags, payload)

    def _answer(self, kind: int, flags: int, payload: bytes) -> bytes:
        self._sequence += 1
        self._socket.send(frame(kind, flags | NLM_F_REQUEST, self._sequence, payload))
        for answer, answer_flags, sequence, content in self._messages():
            if sequence != self._sequence:
                continue
            refusal = refusal_of(answer_flags, content) if answer == NLMSG_ERROR else None
            if refusal is not None:
                raise refusal
            return content
        raise AssertionError("a socket's messages have no end")

    def ask_each(self, questions: Iterable[tuple[int, int, bytes]]) -> list[bytes | NetlinkError]:
        """Sends requests in one datagram; returns for each in turn its one answer, or its error. Raises OSError."""
        frames = []
        for kind, flags, payload in questions:
            self._sequence += 1
            frames.append(frame(kind, flags | NLM_F_REQUEST, self._sequence, payload))
        self._socket.send(b"".join(frames))
        first = self._sequence - len(frames) + 1
        answers: dict[int, bytes | NetlinkError] = {}
        messages = self._messages()
        while len(answers) < len(frames):
            answer, answer_flags, sequence, content = next(messages)
            if sequence >= first:
                refusal = refusal_of(answer_flags, content) if answer == NLMSG_ERROR else None
                answers[sequence] = refusal or content
        return [answers[sequence] for sequence in sorted(answers)]

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """Returns all objects of a kind; asks again if they change. Raises NetlinkError, Interrupted, OSError."""
        for _ in range(DUMP_TRIES):
            try:
                parts = [*self.parts(kind, payload)]
            except OSError as error:
                if error.errno != ENOBUFS:  # a part was lost
                    raise
                continue
            if not any(flags & NLM_F_DUMP_INTR for flags, _ in parts):
                return [content for _, content in parts[:-1]]
        raise Interrupted(f"a dump was interrupted {DUMP_TRIES} times")

    def parts(self, kind: int, payload: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields (flags, content) of each object of a kind as it comes, then of the end, without content. Until then
        the socket is for nothing else. Raises NetlinkError, OperationFailed, OSError.
        """
        self._sequence += 1
        number = self._sequence
        self._socket.send(frame(kind, NLM_F_REQUEST | NLM_F_DUMP, number, payload))
        for answer, flags, sequence, content in self._messages():
            if sequence != number:
                continue
            if answer not in (NLMSG_ERROR, NLMSG_DONE):
                yield flags, content
                continue
            refusal = refusal_of(flags, content) if len(content) >= 4 else None
            if refusal is not None:
                raise refusal
            yield flags, b""
            return

    def _enlarge(self, force: int, within_limit: int, size: int) -> None:
        """Enlarges a buffer. In a user namespace net.core.wmem_max and rmem_max limit it (net/core/sock.c)."""
        try:
            self._socket.setsockopt(SOL_SOCKET, force, size)
        except PermissionError:
            self._socket.setsockopt(SOL_SOCKET, within_limit, size)

    def batch(self, messages: Iterable[tuple[int, int, bytes]]) -> NetlinkError | None:
        """Sends messages in one datagram, waits for the acknowledgement of each that asks for one. Returns the first
        error: a transaction is rejected as a whole (nfnetlink).
        """
        awaited, frames, before = set[int](), list[bytes](), self._sequence
        for kind, flags, payload in messages:
            self._sequence += 1
            frames.append(frame(kind, flags | NLM_F_REQUEST, self._sequence, payload))
            if flags & NLM_F_ACK:
                awaited.add(self._sequence)
        datagram = b"".join(frames)
        if len(datagram) > LARGE_BYTES:
            self._enlarge(SO_SNDBUFFORCE, SO_SNDBUF, 2 * len(datagram))
            self._enlarge(SO_RCVBUFFORCE, SO_RCVBUF, max(2 * LARGE_BYTES, ACKNOWLEDGEMENT_BYTES * len(frames)))
        self._socket.send(datagram)
        first: NetlinkError | None = None
        answers = self._messages()
        while awaited:
            answer, answer_flags, sequence, content = next(answers)
            if answer != NLMSG_ERROR or sequence <= before:  # a batch before may have had more errors than one
                continue
            refusal = refusal_of(answer_flags, content)
            if refusal is not None and first is None:
                refusal.position = sequence - before - 1
                first = refusal
            if refusal is not None and sequence not in awaited:
                break  # the batch itself was refused: nothing in it will be acknowledged
            awaited.discard(sequence)
        return first
