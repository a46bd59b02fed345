"""Netlink messages and sockets (RFC 3549; kernel include/uapi/linux/netlink.h): framing, attributes, answers.

A closed set of messages needs no library: pyroute2 costs 130 ms to import. Tests hold every message to pyroute2's.
"""

from __future__ import annotations

from _struct import Struct

try:
    from _socket import SOCK_CLOEXEC, SOCK_RAW, socket
except ImportError:
    from socket import SOCK_CLOEXEC, SOCK_RAW, socket  # type: ignore[assignment]  # the same, with a wrapper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.spec.address import IP

AF_NETLINK = 16
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 10, 11, 12

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x2, 0x4, 0x10
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

RECEIVE_BYTES = 1 << 16  # a dump's answers come in pieces of at most 32 KiB (net/netlink/af_netlink.c)
DUMP_TRIES = 8


class Refused(Exception):
    """The kernel's answer to one message: errno, and its own words (extended acknowledgement) if it had any."""

    def __init__(self, errno: int, words: str) -> None:
        super().__init__(errno, words)
        self.errno = errno
        self.words = words


class Interrupted(Exception):
    """A dump was changed under way more often than it was tried again."""


def attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length & 3)


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, U8.pack(value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """A string with its NUL."""
    return attribute(kind, value.encode("utf-8", "surrogateescape") + b"\0")


def address(kind: int, value: IP) -> bytes:
    return attribute(kind, value.packed)


def nest(kind: int, *attributes: bytes, flag: int = 0) -> bytes:
    """Nested attributes: rtnetlink takes them without the flag, nfnetlink wants NLA_F_NESTED."""
    return attribute(kind | flag, b"".join(attributes))


def attributes(data: bytes, start: int = 0) -> dict[int, bytes]:
    """Attribute type -> payload; of a repeated attribute the last."""
    return dict(each_attribute(data, start))


def each_attribute(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    end = len(data)
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < 4:
            return
        yield kind & NLA_TYPE_MASK, data[start + 4 : start + length]
        start += (length + 3) & ~3


def frame(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    return HEADER.pack(16 + len(payload), kind, flags, sequence, 0) + payload


def _refusal(flags: int, payload: bytes) -> Refused | None:
    """An NLMSG_ERROR's content: the negative errno, the echoed header, and perhaps words."""
    (code,) = ERROR.unpack_from(payload)
    if code == 0:
        return None
    words = ""
    if flags & NLM_F_ACK_TLVS:
        (echoed,) = U32.unpack_from(payload, 4)
        start = 20 if flags & NLM_F_CAPPED else 4 + ((echoed + 3) & ~3)
        words = attributes(payload, start).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode("utf-8", "replace")
    return Refused(-code, words)


class Netlink:
    """One socket of one family, in the network namespace in which it was opened."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        """The address by which the kernel names who asked for a change, in what it tells everybody about it."""
        if self._socket.getsockname()[0] == 0:  # nothing was sent yet
            self._socket.bind((0, 0))
        number: int = self._socket.getsockname()[0]
        return number

    def _messages(self) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, payload) of each message of the next datagrams, without end."""
        while True:
            data = self._socket.recv(RECEIVE_BYTES)
            position = 0
            while position < len(data):
                length, kind, flags, sequence, _ = HEADER.unpack_from(data, position)
                yield kind, flags, sequence, data[position + 16 : position + length]
                position += (length + 3) & ~3

    def request(self, kind: int, flags: int, payload: bytes) -> None:
        """Sends one message and waits for its acknowledgement. Raises Refused, OSError."""
        self._answer(kind, flags | NLM_F_ACK, payload)

    def ask(self, kind: int, flags: int, payload: bytes) -> bytes:
        """Sends one question and returns its one answer. Raises Refused, OSError."""
        return self._answer(kind, flags, payload)

    def _answer(self, kind: int, flags: int, payload: bytes) -> bytes:
        self._sequence += 1
        self._socket.send(frame(kind, flags | NLM_F_REQUEST, self._sequence, payload))
        for answer, answer_flags, sequence, content in self._messages():
            if sequence != self._sequence:
                continue
            refusal = _refusal(answer_flags, content) if answer == NLMSG_ERROR else None
            if refusal is not None:
                raise refusal
            return content
        raise AssertionError("a socket's messages have no end")

    def ask_each(self, questions: Iterable[tuple[int, int, bytes]]) -> list[bytes | Refused]:
        """Sends questions in one datagram; returns for each in turn its one answer, or its refusal. Raises OSError."""
        frames = []
        for kind, flags, payload in questions:
            self._sequence += 1
            frames.append(frame(kind, flags | NLM_F_REQUEST, self._sequence, payload))
        self._socket.send(b"".join(frames))
        first = self._sequence - len(frames) + 1
        found: dict[int, bytes | Refused] = {}
        answers = self._messages()
        while len(found) < len(frames):
            answer, answer_flags, sequence, content = next(answers)
            if sequence >= first:
                refusal = _refusal(answer_flags, content) if answer == NLMSG_ERROR else None
                found[sequence] = refusal or content
        return [found[sequence] for sequence in sorted(found)]

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """All objects of a kind. Tried again where the kernel says that they changed meanwhile.

        Raises Refused, Interrupted, OSError.
        """
        for _ in range(DUMP_TRIES):
            answers, consistent = self._dump_once(kind, payload)
            if consistent:
                return answers
        raise Interrupted(f"a dump was interrupted {DUMP_TRIES} times")

    def _dump_once(self, kind: int, payload: bytes) -> tuple[list[bytes], bool]:
        self._sequence += 1
        self._socket.send(frame(kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, payload))
        answers: list[bytes] = []
        consistent = True
        for answer, flags, sequence, content in self._messages():
            if sequence != self._sequence:
                continue
            consistent = consistent and not flags & NLM_F_DUMP_INTR
            if answer in (NLMSG_ERROR, NLMSG_DONE):
                refusal = _refusal(flags, content) if len(content) >= 4 else None
                if refusal is not None:
                    raise refusal
                break
            answers.append(content)
        return answers, consistent

    def batch(self, messages: Iterable[tuple[int, int, bytes]]) -> Refused | None:
        """Sends messages in one datagram, waits for the acknowledgement of each that asks for one.

        Returns the first refusal: a transaction's whole is refused with its part (nfnetlink).
        """
        awaited = set()
        frames = []
        for kind, flags, payload in messages:
            self._sequence += 1
            frames.append(frame(kind, flags | NLM_F_REQUEST, self._sequence, payload))
            if flags & NLM_F_ACK:
                awaited.add(self._sequence)
        self._socket.send(b"".join(frames))
        first: Refused | None = None
        answers = self._messages()
        while awaited:
            answer, answer_flags, sequence, content = next(answers)
            if answer != NLMSG_ERROR:
                continue
            refusal = _refusal(answer_flags, content)
            first = first or refusal
            if refusal is not None and sequence not in awaited:
                break  # the batch itself was refused: nothing in it will be acknowledged
            awaited.discard(sequence)
        return first
