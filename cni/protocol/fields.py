"""Readers of JSON objects, which collect wrong types and values as errors with their JSON path.

Keys match as in Go's encoding/json, on which every runtime relies (containerd sends `HostPort` for `hostPort`): in any
case; the last occurrence wins, null is absence, unknown keys are ignored, 1500.0 and "1500" are not integers.
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

TEXT_LIMIT = 500  # characters of one error
RESERVED = 1000  # characters of a message: around the errors and between them
NAME_LIMIT, PATH_LIMIT = 255, 3500  # bytes: limits.h, NAME_MAX; PATH_MAX without the names below a folder
CHARACTER_BYTES = 4  # at most, in UTF-8
UINT32, UINT64 = (1 << 32) - 1, (1 << 64) - 1  # the largest values
KINDS = {str: "a text", bool: "true or false", int: "an integer", dict: "an object", list: "a list"}


class ConfigErrors:
    """The errors of one document, in order: `messages`, as many as one answer can hold, and the `count` of all."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.count = 0
        self._space = LIMIT - RESERVED

    def add(self, path: str, error: str) -> None:
        self.count += 1
        text = shortened(f"{path}: {error}", TEXT_LIMIT)
        if len(text) <= self._space:
            self.messages.append(text)
            self._space -= len(text)
        else:
            self._space = 0  # a shorter message that follows would be out of order

    def raise_if_any(self) -> None:
        """Raises InvalidConfig with all messages, if there are errors."""
        if self.count:
            raise InvalidConfig(f"invalid network configuration: {self.summary}")

    @property
    def summary(self) -> str:
        """The messages in one text, with the number of those left out."""
        omitted = self.count - len(self.messages)
        return "; ".join([*self.messages, f"and {omitted} more"] if omitted else self.messages)


class Fields:
    """A JSON object at a path. A reader of a key adds an error for a wrong value, and returns its default."""

    def __init__(self, members: dict[str, JsonValue], path: str, errors: ConfigErrors) -> None:
        self._members = {key.casefold(): value for key, value in members.items()}
        self.path = path
        self.errors = errors

    def path_of(self, key: str) -> str:
        """Returns the JSON path of a key."""
        return f"{self.path}.{key}" if self.path else key

    def error(self, key: str, message: str) -> None:
        """Adds an error about a key."""
        self.errors.add(self.path_of(key), message)

    def has(self, key: str) -> bool:
        """True if the key exists, even as null."""
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
        """Returns the path of a file or folder; empty if the key is absent."""
        value = self.text(key)
        if len(value) > NAME_LIMIT // CHARACTER_BYTES and not _is_path(value):
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
        """Returns None if the key is absent: zero is a value."""
        return None if self.raw(key) is None else self.integer(key, low, high, low)

    def object(self, key: str) -> Fields:
        """Returns the object; an empty one if the key is absent."""
        return Fields(self._typed(key, dict, {}), self.path_of(key), self.errors)

    def members(self, key: str) -> dict[str, JsonValue]:
        """Returns the object as it was written, with the case of its keys."""
        return self._typed(key, dict, {})

    def items(self, key: str) -> list[JsonValue]:
        return self._typed(key, list, [])

    def objects(self, key: str) -> list[Fields]:
        return objects_of(self.items(key), self.path_of(key), self.errors)

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
    """Returns the objects of a list; any other element is an error."""
    objects = []
    for index, value in enumerate(values):
        element_path = f"{path}[{index}]"
        if isinstance(value, dict):
            objects.append(Fields(value, element_path, errors))
        else:
            errors.add(element_path, "expected an object")
    return objects
