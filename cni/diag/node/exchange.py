"""Packets of one kind to many addresses at once, and who answers them."""

from __future__ import annotations

import selectors
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from cni.protocol.address import IP

TIMES = 3  # that a packet is sent until it is answered
AT_ONCE = 32  # packets between two looks at answers, so that the socket's buffer holds these

Asked = TypeVar("Asked")


class Exchange(ABC, Generic[Asked]):
    """A raw socket of one IP version, and what it has to ask, by numbers that answers have as well."""

    def __init__(self, family: int, raw: socket.socket, pending: dict[int, Asked]) -> None:
        """Takes the socket, which does not block."""
        self._family, self._socket, self._pending = family, raw, dict(pending)
        self._replied: set[Asked] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(raw, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self._socket.close()

    @abstractmethod
    def _address(self, asked: Asked) -> IP:
        """Returns where a packet goes, and its answer comes from."""

    @abstractmethod
    def _packet(self, number: int, asked: Asked) -> bytes:
        """Returns a packet, without the header of IP. Raises OSError."""

    @abstractmethod
    def _number(self, data: bytes) -> int | None:
        """Returns the number of the packet that this one answers, without the header of IP; None if it answers none."""

    def run(self, seconds: float) -> set[Asked]:
        """Returns what was answered in that time; it returns at once when all were."""
        for _ in range(TIMES):
            end = time.monotonic() + seconds / TIMES
            numbers = list(self._pending)
            for start in range(0, len(numbers), AT_ONCE):
                self._send(numbers[start : start + AT_ONCE])
                self._receive(0)
            while self._pending and (left := end - time.monotonic()) > 0:
                self._receive(left)
        return self._replied

    def _send(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            asked = self._pending.get(number)
            if asked is not None:
                with suppress(OSError):  # no route, a full buffer, a filter: not answered
                    self._socket.sendto(self._packet(number, asked), (self._address(asked).text, 0))

    def _receive(self, seconds: float) -> None:
        """Takes in all answers that are there, after waiting for the first."""
        if not self._selector.select(seconds):
            return
        while self._pending:
            try:
                data, source = self._socket.recvfrom(1 << 16)
            except OSError:  # there is none
                return
            self._take(data, str(source[0]))

    def _take(self, data: bytes, source: str) -> None:
        if self._family == 4 and data:
            data = data[(data[0] & 0x0F) * 4 :]
        number = self._number(data)
        if number in self._pending and self._address(self._pending[number]).text == source:
            self._replied.add(self._pending.pop(number))
