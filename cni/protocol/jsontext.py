"""JSON text to values and back, through the C halves of the standard library's json.

`import json` costs 5 to 12 ms (re, enum, codecs for its error texts); `_json` costs nothing. The module is private,
so whatever it lacks falls back on the public one, and a test holds both to the same answers.

What is read can be written again: numbers beyond measure and nesting beyond DEPTH are refused, half a surrogate pair
becomes U+FFFD, as in Go.
"""

from __future__ import annotations

from cni.protocol.errors import DecodingFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

WHITESPACE = " \t\n\r"
DEPTH = 500  # objects and lists within each other: reading and writing take a frame of the interpreter's 1000 for each
INFINITY = float("inf")
DIGITS_SHOWN = 20
ESCAPED_SURROGATES = ("\\ud", "\\uD")  # the beginning of an escaped surrogate, of a whole pair too


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (INFINITY, -INFINITY):
        raise ValueError(f"{digits[:DIGITS_SHOWN]} is too large a number")
    return number


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
    parse_float = staticmethod(_finite)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}  # noqa: RUF012


def _scanner() -> Callable[[str, int], tuple[JsonValue, int]]:
    try:
        from _json import make_scanner
    except ImportError:
        from json import JSONDecoder

        return JSONDecoder(
            object_pairs_hook=_last_wins, parse_float=_finite, parse_constant=_refuse_constant
        ).raw_decode
    scanner: Callable[[str, int], tuple[JsonValue, int]] = make_scanner(_Context)  # type: ignore[arg-type]  # any object with these attributes serves
    return scanner


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in WHITESPACE:
        position += 1
    return position


def _scan(text: str, start: int) -> tuple[JsonValue, int]:
    """Raises StopIteration, ValueError, RecursionError."""
    try:
        return _scanner()(text, start)
    except SystemError:
        # Up to CPython 3.11 the scanner takes its error's class from sys.modules, and fails where it is not loaded.
        import json.decoder  # noqa: F401

        return _scanner()(text, start)


def parse(data: bytes, what: str) -> JsonValue:
    """The value of one JSON document; `what` names it in errors.

    Numbers with a fraction or an exponent become floats, others ints (as Go tells them apart).
    Raises DecodingFailure.
    """
    text = data.decode("utf-8", "replace")
    start = _skip(text, 0)
    if start == len(text):
        raise DecodingFailure(f"{what} is empty, expected a JSON object")
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise DecodingFailure(f"{what} is not JSON: unexpected text at character {stop.value}") from None
    except RecursionError:
        raise DecodingFailure(
            f"{what} is nested too deep: {DEPTH} objects and lists within each other are read"
        ) from None
    except ValueError as error:
        raise DecodingFailure(f"{what} is not JSON: {_in_plain_words(error)}") from None
    end = _skip(text, end)
    if end != len(text):
        raise DecodingFailure(f"{what} is not JSON: more text after the value, at character {end}")
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise DecodingFailure(f"{what} is nested too deep: {DEPTH} objects and lists within each other are read")
    if any(escape in text for escape in ESCAPED_SURROGATES):
        return _whole(value)
    return value


def _in_plain_words(error: ValueError) -> str:
    """The interpreter's advice on integers of thousands of digits is not for users."""
    return "an integer has too many digits" if "set_int_max_str_digits" in str(error) else str(error)


def _depth(value: JsonValue) -> int:
    """How many objects and lists are within each other."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _whole(value: JsonValue) -> JsonValue:
    """With U+FFFD for each half of a surrogate pair: no file, no kernel and few readers of JSON take one."""
    if isinstance(value, str):
        return "".join(["\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in value])
    if isinstance(value, dict):
        return {str(_whole(key)): _whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole(inner) for inner in value]
    return value


def parse_object(data: bytes, what: str) -> dict[str, JsonValue]:
    """As `parse`, for a document that has to be an object. Raises DecodingFailure."""
    value = parse(data, what)
    if not isinstance(value, dict):
        raise DecodingFailure(f"{what} is not a JSON object")
    return value


def dump(value: JsonValue) -> str:
    """Compact JSON in ASCII, so that no locale can spoil it; what is no UTF-8 in the environment becomes U+FFFD."""
    text = _dump(value)
    if ESCAPED_SURROGATES[0] in text:
        return _dump(_whole(value))
    return text


def _dump(value: JsonValue) -> str:
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
