"""Reading JSON objects: keys in any case, wrong types and values gathered as faults with their JSON path.

Keys match as in Go's encoding/json, which every runtime relies on (containerd sends `HostPort` for `hostPort`): any
case, the last occurrence wins, null is absence, unknown keys are ignored, 1500.0 and "1500" are no integers.
"""

from __future__ import annotations

from cni.protocol.address import IP, Net, parse_ip, parse_mac, parse_net
from cni.protocol.errors import LIMIT, InvalidConfig, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cni.protocol.jsontext import JsonValue

    T = TypeVar("T")

TEXT_LIMIT = 500  # characters of one fault
RESERVED = 1000  # of a message, for what stands around the faults and between them
NAME_LIMIT, PATH_LIMIT = 255, 3500  # bytes: limits.h, NAME_MAX; PATH_MAX less what comes behind a folder
BYTES = 4  # of a character, at most
UINT32, UINT64 = (1 << 32) - 1, (1 << 64) - 1  # the largest
KINDS = {str: "a text", bool: "true or false", int: "an integer", dict: "an object", list: "a list"}


class ConfigErrors:
    """All that is wrong with one document, in the order found: as many texts as a message holds, and their number."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.count = 0
        self._room = LIMIT - RESERVED

    def add(self, path: str, error: str) -> None:
        self.count += 1
        text = shortened(f"{path}: {error}", TEXT_LIMIT)
        if len(text) <= self._room:
            self.messages.append(text)
            self._room -= len(text)
        else:
            self._room = 0  # what follows would be out of order

    def raise_if_any(self) -> None:
        """Raises InvalidConfig naming every fault, where there is one."""
        if self.count:
            raise InvalidConfig(f"invalid network configuration: {self.summary}")

    @property
    def summary(self) -> str:
        """All of them in one text."""
        left_out = self.count - len(self.messages)
        return "; ".join([*self.messages, f"and {left_out} more"] if left_out else self.messages)


class Fields:
    """One JSON object under a path; every reader returns its default after noting a fault."""

    def __init__(self, members: dict[str, JsonValue], path: str, errors: ConfigErrors) -> None:
        self._members = {key.casefold(): value for key, value in members.items()}
        self.path = path
        self.errors = errors

    def where(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, text: str) -> None:
        self.errors.add(self.where(key), text)

    def has(self, key: str) -> bool:
        """The key is there, even as null."""
        return key.casefold() in self._members

    def raw(self, key: str) -> JsonValue:
        return self._members.get(key.casefold())

    def _typed(self, key: str, kind: type[T], default: T) -> T:
        value = self.raw(key)
        if value is None:
            return default
        if type(value) is not kind:
            self.error(key, f"expected {KINDS[kind]}")
            return default
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self._typed(key, str, default)
        if "\0" in value:  # no path and no name can hold it
            self.error(key, "holds a NUL character")
            return default
        return value

    def file_path(self, key: str) -> str:
        """A file's or a folder's; empty where there is none."""
        value = self.text(key)
        if len(value) > NAME_LIMIT // BYTES and not _is_path(value):
            self.error(key, f"is too long for a path ({NAME_LIMIT} bytes between slashes, {PATH_LIMIT} in all)")
            return ""
        return value

    def flag(self, key: str) -> bool:
        return self._typed(key, bool, False)

    def integer(self, key: str, low: int, high: int, default: int = 0) -> int:
        value = self._typed(key, int, default)
        if value != default and not low <= value <= high:
            self.error(key, f"{value} is not between {low} and {high}")
            return default
        return value

    def optional_integer(self, key: str, low: int, high: int) -> int | None:
        """None where the key is absent: zero is a value of its own."""
        return None if self.raw(key) is None else self.integer(key, low, high, low)

    def object(self, key: str) -> Fields:
        """An absent object reads as an empty one."""
        return Fields(self._typed(key, dict, {}), self.where(key), self.errors)

    def members(self, key: str) -> dict[str, JsonValue]:
        """An object as it was written, keys in their case."""
        return self._typed(key, dict, {})

    def items(self, key: str) -> list[JsonValue]:
        return self._typed(key, list, [])

    def objects(self, key: str) -> list[Fields]:
        return objects_of(self.items(key), self.where(key), self.errors)

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.items(key)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                self.error(f"{key}[{index}]", "expected a text")
        return tuple([value for value in values if isinstance(value, str)])

    def _parsed(self, key: str, parse: Callable[[str], T]) -> T | None:
        text = self.text(key)
        if not text:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.error(key, str(error))
            return None

    def ip(self, key: str) -> IP | None:
        return self._parsed(key, parse_ip)

    def net(self, key: str) -> Net | None:
        return self._parsed(key, parse_net)

    def mac(self, key: str) -> bytes | None:
        return self._parsed(key, parse_mac)


def _is_path(text: str) -> bool:
    data = text.encode()
    return len(data) <= PATH_LIMIT and all(len(name) <= NAME_LIMIT for name in data.split(b"/"))


def objects_of(values: list[JsonValue], path: str, errors: ConfigErrors) -> list[Fields]:
    """The objects of a list; anything else in it is a fault."""
    found = []
    for index, value in enumerate(values):
        where = f"{path}[{index}]"
        if isinstance(value, dict):
            found.append(Fields(value, where, errors))
        else:
            errors.add(where, "expected an object")
    return found
