"""The netlink socket: answers and refusals told apart, interrupted dumps tried again, within a bound."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import rtnl, rtnl_parse
from cni.kernel.netlink import (
    ANSWER_SECONDS,
    DUMP_TRIES,
    HEADER,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    RECEIVE_BYTES,
    Interrupted,
    Malformed,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    each_attribute,
    frame,
    text,
    u8,
    u32,
)
from cni.protocol.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = 16
NLM_F_MULTI = 0x2


class Addressed:
    """A socket whose datagrams come from the port that `sender` says: 0 is the kernel."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours, self.sender = ours, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ours, name)

    def recvmsg(self, size: int, ancillary: int, flags: int) -> tuple[bytes, list[Any], int, tuple[int, int]]:
        data, received, given, _ = self._ours.recvmsg(size, ancillary, flags)
        sender, self.sender = self.sender, 0
        return data, received, given, (sender, 0)


class Kernel:
    """The other end of a socket: its answers are laid out before they are asked for."""

    def __init__(self) -> None:
        pair, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pair.settimeout(5)
        self.ours: Any = Addressed(pair)
        self.netlink = Netlink.__new__(Netlink)
        self.netlink.__dict__["_socket"] = self.ours
        self.netlink._sequence = 0

    def says(self, *messages: bytes) -> None:
        self.end.send(b"".join([message.ljust((len(message) + 3) & ~3, b"\0") for message in messages]))

    def heard(self) -> list[tuple[int, int, int]]:
        """(type, flags, sequence) of all messages of the next datagram."""
        data, requests = self.end.recv(1 << 16), []
        while data:
            length, kind, flags, sequence, _ = HEADER.unpack_from(data)
            requests.append((kind, flags, sequence))
            data = data[(length + 3) & ~3 :]
        return requests


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.end.close()
    kernel.netlink.close()


def error(sequence: int, code: int, reason: str = "", flags: int = NLM_F_CAPPED) -> bytes:
    """An acknowledgement (code 0) or refusal of a message of 20 bytes, echoed whole unless it is capped."""
    echo = frame(20, 5, sequence, b"" if flags & NLM_F_CAPPED else b"echo")
    attribute = text(1, reason) if reason else b""
    return frame(
        NLMSG_ERROR, flags | (NLM_F_ACK_TLVS if reason else 0), sequence, struct.pack("=i", -code) + echo + attribute
    )


def done(sequence: int, code: int = 0) -> bytes:
    return frame(NLMSG_DONE, NLM_F_MULTI, sequence, struct.pack("=i", -code))


def part(sequence: int, content: bytes, flags: int = 0) -> bytes:
    return frame(ANSWER, NLM_F_MULTI | flags, sequence, content)


def test_a_request_waits_for_its_acknowledgement(kernel: Kernel) -> None:
    kernel.says(error(7, errno.EPERM))  # the answer to what somebody else asked
    kernel.says(error(1, 0))
    kernel.netlink.request(20, 0x600, b"abcd")
    assert kernel.heard() == [(20, 0x605, 1)]


def test_a_question_returns_its_answer(kernel: Kernel) -> None:
    kernel.says(frame(ANSWER, 0, 7, b"other"), frame(ANSWER, 0, 1, b"answer"))
    assert kernel.netlink.ask(18, 0, b"") == b"answer"
    assert kernel.heard() == [(18, 1, 1)]


@pytest.mark.parametrize("flags", [NLM_F_CAPPED, 0])
@pytest.mark.parametrize("reason", ["", "Device is not a bridge"])
def test_a_refusal_has_the_kernels_own_words(kernel: Kernel, reason: str, flags: int) -> None:
    kernel.says(error(1, errno.EBUSY, reason, flags))
    with pytest.raises(NetlinkError) as refusal:
        kernel.netlink.request(20, 0, b"")
    assert (refusal.value.errno, refusal.value.text) == (errno.EBUSY, reason)


def test_a_dump_gathers_all_parts(kernel: Kernel) -> None:
    kernel.says(part(9, b"stale"), part(1, b"a"), part(1, b"bc"))
    kernel.says(part(1, b""), done(1))
    assert kernel.netlink.dump(18, b"") == [b"a", b"bc", b""]
    assert kernel.heard() == [(18, 0x301, 1)]


def test_a_long_dump_is_read_as_it_comes(kernel: Kernel) -> None:
    kernel.says(part(1, b"a"), part(1, b"b"))
    parts = kernel.netlink.parts(18, b"")
    assert [next(parts)[1], next(parts)[1]] == [b"a", b"b"]
    kernel.says(part(1, b"c", NLM_F_DUMP_INTR), done(1))
    assert [content for _, content in parts] == [b"c", b""]
    kernel.says(error(2, errno.EINVAL))
    with pytest.raises(NetlinkError):
        next(kernel.netlink.parts(18, b""))


@pytest.mark.parametrize("flagged", ["part", "end"])
def test_an_interrupted_dump_is_tried_again(kernel: Kernel, flagged: str) -> None:
    if flagged == "part":
        kernel.says(part(1, b"torn", NLM_F_DUMP_INTR), done(1))
    else:
        kernel.says(part(1, b"torn"), frame(NLMSG_DONE, NLM_F_MULTI | NLM_F_DUMP_INTR, 1, struct.pack("=i", 0)))
    kernel.says(part(2, b"whole"), done(2))
    assert kernel.netlink.dump(18, b"") == [b"whole"]
    assert [kernel.heard()[0][2] for _ in range(2)] == [1, 2]


def test_a_dump_is_not_tried_for_ever(kernel: Kernel) -> None:
    for number in range(DUMP_TRIES):
        kernel.says(part(number + 1, b"torn", NLM_F_DUMP_INTR), done(number + 1))
    with pytest.raises(Interrupted, match=rf"^a dump was interrupted {DUMP_TRIES} times$"):
        kernel.netlink.dump(18, b"")
    assert [kernel.heard()[0][2] for _ in range(DUMP_TRIES)] == list(range(1, DUMP_TRIES + 1))


@pytest.mark.parametrize("end", [error(1, errno.ENOENT), done(1, errno.ENOENT)])
def test_a_dump_may_be_refused(kernel: Kernel, end: bytes) -> None:
    kernel.says(end)
    with pytest.raises(NetlinkError) as refusal:
        kernel.netlink.dump(18, b"")
    assert refusal.value.errno == errno.ENOENT


def test_a_dump_may_end_without_a_status(kernel: Kernel) -> None:
    kernel.says(part(1, b"a"), frame(NLMSG_DONE, NLM_F_MULTI, 1, b""))
    assert kernel.netlink.dump(18, b"") == [b"a"]


BATCH = [(16, 0, b""), (20, NLM_F_ACK, b"abcd"), (21, NLM_F_ACK, b"efgh"), (17, 0, b"")]


def test_a_batch_goes_in_one_datagram_and_waits_for_what_is_to_be_acknowledged(kernel: Kernel) -> None:
    kernel.says(part(1, b"passed over"), error(2, 0))
    kernel.says(error(3, 0))
    assert kernel.netlink.batch(BATCH) is None
    assert kernel.heard() == [(16, 1, 1), (20, 5, 2), (21, 5, 3), (17, 1, 4)]


def test_a_batch_returns_its_first_refusal(kernel: Kernel) -> None:
    kernel.says(error(2, errno.EEXIST), error(3, errno.ENOENT))
    refusal = kernel.netlink.batch(BATCH)
    assert refusal
    assert refusal.errno == errno.EEXIST


def test_a_batch_that_is_refused_as_a_whole_is_not_waited_for(kernel: Kernel) -> None:
    kernel.says(error(1, errno.EOPNOTSUPP))
    refusal = kernel.netlink.batch(BATCH)
    assert refusal
    assert refusal.errno == errno.EOPNOTSUPP


def test_what_is_left_of_the_errors_of_a_batch_is_not_taken_for_those_of_the_next(kernel: Kernel) -> None:
    """A message that asks for no acknowledgement answers if it is refused, and no error but the first is waited for."""
    quiet = [(kind, 0, payload) for kind, _, payload in BATCH]
    quiet[2] = BATCH[2]
    kernel.says(error(2, errno.ENOENT))
    kernel.says(error(3, errno.ENOENT))
    refusal = kernel.netlink.batch(quiet)
    assert refusal
    assert refusal.position == 1
    kernel.says(error(7, 0))
    assert kernel.netlink.batch(quiet) is None


def test_a_silent_socket_is_an_os_error(kernel: Kernel) -> None:
    kernel.netlink._socket.settimeout(0.01)
    with pytest.raises(TimeoutError):
        kernel.netlink.request(20, 0, b"")


@pytest.mark.parametrize("size", range(9))
def test_attributes_are_padded_to_four_bytes(size: int) -> None:
    payload = os.urandom(size)
    data = attribute(1, payload) + attribute(2, b"end")
    assert len(data) % 4 == 0
    assert list(each_attribute(data)) == [(1, payload), (2, b"end")]


def test_numbers_have_their_width() -> None:
    data = u8(1, 255) + u32(3, 1 << 31)
    assert attributes(data) == {1: b"\xff", 3: struct.pack("=I", 1 << 31)}


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0"])
def test_less_than_a_header_is_padding(data: bytes) -> None:
    assert attributes(u32(1, 5) + data) == {1: struct.pack("=I", 5)}


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\3\0\1\0abcd", b"\0" * 64, b"\x09\0\1\0abcd", b"\xff\xff\1\0"])
def test_an_attribute_that_is_too_short_or_too_long_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        attributes(u32(1, 5) + data)


@pytest.mark.parametrize("length", [0, 1, 15, 21, 1 << 31])
def test_a_message_that_is_too_short_or_too_long_is_malformed(kernel: Kernel, length: int) -> None:
    kernel.says(struct.pack("=I", length) + frame(ANSWER, 0, 1, b"abcd")[4:])
    with pytest.raises(Malformed):
        kernel.netlink.ask(18, 0, b"")


@pytest.mark.parametrize("end", [b"", b"\0", b"\0" * 15])
def test_less_than_a_message_is_malformed(kernel: Kernel, end: bytes) -> None:
    kernel.end.send(frame(ANSWER, 0, 9, b"abcd") + (end or b"abc"))
    with pytest.raises(Malformed):
        kernel.netlink.ask(18, 0, b"")


def test_a_refusal_without_an_errno_is_malformed(kernel: Kernel) -> None:
    kernel.says(frame(NLMSG_ERROR, 0, 1, b""))
    with pytest.raises(Malformed):
        kernel.netlink.request(20, 0, b"")


def test_an_answer_that_is_cut_off_is_malformed(kernel: Kernel) -> None:
    kernel.says(frame(ANSWER, 0, 1, bytes(RECEIVE_BYTES)))
    with pytest.raises(Malformed):
        kernel.netlink.ask(18, 0, b"")


def test_what_others_send_is_passed_over(kernel: Kernel) -> None:
    kernel.ours.sender = 4711
    kernel.says(bytes(16))
    kernel.says(frame(ANSWER, 0, 1, b"answer"))
    assert kernel.netlink.ask(18, 0, b"") == b"answer"


def test_a_dump_of_which_a_part_was_lost_is_tried_again(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    received, lost = kernel.netlink._receive, [True]

    def receive(flags: int = 0) -> bytes:
        if lost and lost.pop():
            received(flags)
            raise OSError(errno.ENOBUFS, "lost")
        return received(flags)

    monkeypatch.setattr(kernel.netlink, "_receive", receive)
    kernel.says(part(1, b"torn"))
    kernel.says(part(2, b"whole"), done(2))
    assert kernel.netlink.dump(18, b"") == [b"whole"]


def test_the_wait_for_an_answer_is_bounded(kernel: Kernel) -> None:
    kernel.ours.setblocking(False)
    with pytest.raises(OperationFailed, match="no answer from the kernel within 10 s"):
        kernel.netlink.request(20, 0, b"")
    real = Netlink(rtnl.NETLINK_ROUTE)
    seconds, _ = struct.unpack("@ll", real._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16))
    real.close()
    assert seconds == ANSWER_SECONDS


def test_flags_of_an_attributes_type_are_no_part_of_it() -> None:
    assert attributes(attribute(3 | 0x8000, b"a") + attribute(4 | 0x4000, b"b")) == {3: b"a", 4: b"b"}


def test_of_an_attribute_that_repeats_the_last_counts() -> None:
    assert attributes(attribute(1, b"a") + attribute(1, b"b")) == {1: b"b"}


def test_a_name_of_any_bytes_goes_there_and_back() -> None:
    sent = rtnl.set_flags("\udcff\u00e9", 0, 0)[2]
    assert rtnl_parse.parse_link(sent).name == "\udcff\u00e9"


@pytest.mark.parametrize("option", [10, 11, 12])
def test_the_kernel_is_asked_for_words_short_echoes_and_strict_checks(option: int) -> None:
    """NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK (include/uapi/linux/netlink.h)."""
    netlink = Netlink(rtnl.NETLINK_ROUTE)
    assert netlink._socket.getsockopt(270, option) == 1
    netlink.close()
