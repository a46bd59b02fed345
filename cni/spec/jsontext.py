"""JSON text to values and back, through the C halves of the standard library's json.

`import json` costs 5 to 12 ms (re, enum, codecs for its error texts); `_json` costs nothing. The module is private,
so whatever it lacks falls back on the public one, and a test holds both to the same answers.
"""

from __future__ import annotations

from cni.spec.errors import Undecodable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

WHITESPACE = " \t\n\r"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _last_wins(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """An object whose keys stand in the order of their last occurrence: the order in which Go assigns them."""
    members: dict[str, JsonValue] = {}
    for key, value in pairs:
        members.pop(key, None)
        members[key] = value
    return members


class _Context:
    """What json.JSONDecoder hands to the scanner (CPython Modules/_json.c, scanner_new)."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_last_wins)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}  # noqa: RUF012


def _scanner() -> Callable[[str, int], tuple[JsonValue, int]]:
    try:
        from _json import make_scanner
    except ImportError:
        from json import JSONDecoder

        return JSONDecoder(object_pairs_hook=_last_wins, parse_constant=_refuse_constant).raw_decode
    scanner: Callable[[str, int], tuple[JsonValue, int]] = make_scanner(_Context)  # type: ignore[arg-type]  # any object with these attributes serves
    return scanner


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in WHITESPACE:
        position += 1
    return position


def parse(data: bytes, what: str) -> JsonValue:
    """The value of one JSON document; `what` names it in errors.

    Numbers with a fraction or an exponent become floats, others ints (as Go tells them apart).
    Raises Undecodable.
    """
    text = data.decode("utf-8", "replace")
    start = _skip(text, 0)
    if start == len(text):
        raise Undecodable(f"{what} is empty, expected a JSON object")
    try:
        value, end = _scanner()(text, start)
    except StopIteration as stop:
        raise Undecodable(f"{what} is not JSON: unexpected text at character {stop.value}") from None
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"{what} is not JSON: {error}") from None
    end = _skip(text, end)
    if end != len(text):
        raise Undecodable(f"{what} is not JSON: more text after the value, at character {end}")
    return value


def parse_object(data: bytes, what: str) -> dict[str, JsonValue]:
    """As `parse`, for a document that has to be an object. Raises Undecodable."""
    value = parse(data, what)
    if not isinstance(value, dict):
        raise Undecodable(f"{what} is not a JSON object")
    return value


def dump(value: JsonValue) -> str:
    """Compact JSON in ASCII, so that no locale and no lone surrogate can spoil it."""
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        from json import dumps

        return dumps(value, separators=(",", ":"), allow_nan=False)
    encoder = make_encoder(
        None,
        None,  # type: ignore[arg-type]  # no default: an alien value is a TypeError
        encode_basestring_ascii,
        None,
        ":",
        ",",
        False,
        False,
        False,
    )
    return "".join(encoder(value, 0))
