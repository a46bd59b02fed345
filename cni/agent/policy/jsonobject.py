"""Readers of objects as the Kubernetes API writes them: keys match exactly, null is absence.

A wrong type is noted as an error with its path. `unknown_keys` notes every other key: a rule whose `from` is
misspelt would allow everybody.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING

from cni.protocol.address import PORT_LIMIT
from cni.protocol.fields import ConfigErrors

if TYPE_CHECKING:
    from typing import TypeVar

    from cni.protocol.jsontext import JsonValue

    T = TypeVar("T")
    Labels = tuple[tuple[str, str], ...]  # sorted by key

NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
PORT_NAME_LIMIT = 15
KINDS = {str: "a text", bool: "true or false", int: "an integer", dict: "an object", list: "a list"}


class Invalid(Exception):
    """An object that cannot be understood: `path: cause` of each error."""


class JsonObject:
    """A JSON object: `key` of `parent`. A reader of a key adds an error for a wrong value, and returns its default."""

    __slots__ = ("_key", "_members", "_parent", "errors")

    def __init__(
        self, members: dict[str, JsonValue], key: str, errors: ConfigErrors, parent: JsonObject | None = None
    ) -> None:
        self._members = members
        self._key = key
        self._parent = parent
        self.errors = errors

    def error(self, key: str, cause: str) -> None:
        """Adds an error about a key."""
        self.errors.add(self.path_of(key), cause)

    def path_of(self, key: str) -> str:
        """Returns the path of a key: it is put together for errors alone, as thousands of objects have none."""
        path = f"{self._key}.{key}" if self._key else key
        return self._parent.path_of(path) if self._parent is not None else path

    def has(self, key: str) -> bool:
        """True if the key has a value other than null."""
        return self._members.get(key) is not None

    def unknown_keys(self, *known: str) -> None:
        """Adds an error for every key but the known ones."""
        for key in self._members:
            if key not in known:
                self.error(key, "unknown field")

    def _typed(self, key: str, kind: type[T], default: T) -> T:
        value = self._members.get(key)
        if value is None:
            return default
        if type(value) is not kind:
            self.error(key, f"expected {KINDS[kind]}")
            return default
        return value

    def text(self, key: str, default: str = "") -> str:
        return self._typed(key, str, default)

    def flag(self, key: str) -> bool:
        return self._typed(key, bool, False)

    def number(self, key: str, least: int, most: int) -> int | None:
        """Returns an integer; None if the key is absent."""
        value = self._members.get(key)
        if value is None or (type(value) is int and least <= value <= most):
            return value
        self.error(key, f"expected an integer between {least} and {most}")
        return None

    def port(self, key: str) -> int:
        """Returns a port number; 0 if the key is absent."""
        return self.number(key, 1, PORT_LIMIT) or 0

    def name(self, key: str, default: str, limit: int) -> str:
        """Returns a name as RFC 1123 has them: it becomes a part of chains' names."""
        name = self.text(key, default)
        if not name or len(name) > limit or not NAME_LETTERS.issuperset(name):
            self.error(key, f"{name!r} is not a name of at most {limit} lower case letters, digits, '-' and '.'")
        return intern(name)

    def port_name(self, key: str) -> str:
        """Returns a name as RFC 6335 has them for ports."""
        name = intern(self.text(key))
        if len(name) > PORT_NAME_LIMIT or not NAME_LETTERS.issuperset(name) or not name.strip("0123456789-."):
            self.error(key, f"{name!r} is not a port's name (a number has no quotes)")
        return name

    def is_filled(self, key: str) -> bool:
        """True if the key has a value other than null and an empty list."""
        return self._members.get(key) not in (None, [])

    def is_text(self, key: str) -> bool:
        return isinstance(self._members.get(key), str)

    def object(self, key: str) -> JsonObject:
        """Returns the object; an empty one if the key is absent."""
        return JsonObject(self._typed(key, dict, {}), key, self.errors, self)

    def objects(self, key: str) -> list[JsonObject]:
        objects = []
        for position, value in enumerate(self._typed(key, list, [])):
            if isinstance(value, dict):
                objects.append(JsonObject(value, f"{key}[{position}]", self.errors, self))
            else:
                self.error(f"{key}[{position}]", "expected an object")
        return objects

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._typed(key, list, [])
        for position, value in enumerate(values):
            if not isinstance(value, str):
                self.error(f"{key}[{position}]", "expected a text")
        return tuple([intern(value) for value in values if isinstance(value, str)])

    def labels(self, key: str) -> Labels:
        """Returns an object of texts as pairs, sorted by their key."""
        pairs = []
        for name, value in self._typed(key, dict, {}).items():
            if isinstance(value, str):
                pairs.append((intern(name), intern(value)))
            else:
                self.error(f"{key}.{name}", "expected a text")
        return tuple(sorted(pairs))


def read_object(value: JsonValue) -> JsonObject:
    """Returns an object that stands alone. Raises Invalid."""
    if not isinstance(value, dict):
        raise Invalid("expected an object")
    return JsonObject(value, "", ConfigErrors())


def raise_if_any(errors: ConfigErrors) -> None:
    """Raises Invalid with all errors, if there are any."""
    if errors.count:
        raise Invalid(errors.summary)
