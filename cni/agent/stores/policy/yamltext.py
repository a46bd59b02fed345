"""YAML text to the values that JSON can have, as `kubectl get -o yaml` writes it and people write it by hand.

Built from the parser's events, which takes no more of anything than the text is long. What YAML has beyond JSON is
refused: tags, aliases (a few lines of them can stand for any amount of memory) and keys that occur twice. Plain texts
are numbers, booleans and null as in YAML 1.1, which kubectl reads too; a key is always a text, and so is a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.errors import DecodingFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from yaml.events import Event, ScalarEvent

    from cni.protocol.jsontext import JsonValue

DEPTH = 100  # mappings and sequences within each other
CONSTANTS: dict[str, JsonValue] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"], True),
    **dict.fromkeys(["false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"], False),
}
NUMBER_STARTS = frozenset("+-.0123456789")
DIGITS_LIMIT = 20  # of an integer: more are no port
TEXT_TAG = "tag:yaml.org,2002:str"


def parse_documents(data: bytes, name: str) -> list[JsonValue]:
    """Returns the documents that are not empty; errors call the text `name`. Raises DecodingFailure."""
    import yaml

    if not data.strip():
        raise DecodingFailure(f"{name} is empty")
    builder = _Builder(name)
    try:
        for event in yaml.parse(data, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise DecodingFailure(
            f"{name} is not YAML: {_line(error.problem_mark)}{error.problem or error.context}"
        ) from None
    except (yaml.YAMLError, ValueError):
        raise DecodingFailure(f"{name} is not YAML: it has characters that are not text") from None
    return [document for document in builder.documents if document is not None]


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}: " if mark is not None else ""


class _Builder:
    """The values of events; an event that JSON has no value for is a DecodingFailure."""

    def __init__(self, name: str) -> None:
        self.documents: list[JsonValue] = []
        self._name = name
        self._open: list[_Mapping | list[JsonValue]] = []

    def take(self, event: Event) -> None:
        from yaml import events

        if isinstance(event, events.AliasEvent):
            raise self._error(event, f"alias *{event.anchor} (write what it stands for)")
        if isinstance(event, events.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (events.MappingStartEvent, events.SequenceStartEvent)):
            if event.tag is not None:
                raise self._error(event, f"tag {event.tag}")
            if len(self._open) == DEPTH:
                raise self._error(event, f"nested too deep: {DEPTH} mappings and sequences within each other")
            self._open.append(_Mapping() if isinstance(event, events.MappingStartEvent) else [])
        elif isinstance(event, (events.MappingEndEvent, events.SequenceEndEvent)):
            ended = self._open.pop()
            self._value(event, ended.members if isinstance(ended, _Mapping) else ended)

    def _scalar(self, event: ScalarEvent) -> None:
        top = self._open[-1] if self._open else None
        text = event.value
        if not text.isascii():  # a pair of escaped surrogates is one character, and half a pair U+FFFD, as in JSON
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if isinstance(top, _Mapping) and top.key is None:
            if text in top.members or text == "<<":
                raise self._error(event, f"{'merge' if text == '<<' else 'duplicate'} key {text!r}")
            top.key = text
        elif event.tag not in (None, "!", TEXT_TAG):
            raise self._error(event, f"tag {event.tag}")
        else:
            self._value(event, _plain(text) if event.tag is None and event.implicit[0] else text)

    def _value(self, event: Event, value: JsonValue) -> None:
        top = self._open[-1] if self._open else self.documents
        if isinstance(top, list):
            top.append(value)
        elif top.key is None:
            raise self._error(event, "a key that is not a text")
        else:
            top.members[top.key] = value
            top.key = None

    def _error(self, event: Event, problem: str) -> DecodingFailure:
        return DecodingFailure(f"{self._name} is not supported YAML: {_line(event.start_mark)}{problem}")


class _Mapping:
    """A mapping whose end has not come; `key`: that of the value that comes next, if it came."""

    __slots__ = ("key", "members")

    def __init__(self) -> None:
        self.members: dict[str, JsonValue] = {}
        self.key: str | None = None


def _plain(text: str) -> JsonValue:
    """Returns the value of a text that stands without quotes."""
    if text in CONSTANTS:
        return CONSTANTS[text]
    return next(_numbers(text), text) if text[0] in NUMBER_STARTS else text


def _numbers(text: str) -> Iterator[int | float]:
    """Yields the number that a text is, if it is one: `010` is none, which some read as eight."""
    digits = text.removeprefix("-").removeprefix("+")
    if digits.isdecimal() and digits.isascii():
        if len(digits) <= DIGITS_LIMIT and (digits == "0" or digits[0] != "0"):
            yield int(text)
    elif "_" not in text and text.isascii() and any(letter.isdecimal() for letter in text):
        try:
            number = float(text)
        except ValueError:
            return
        if number - number == 0:  # it is finite
            yield number
