"""JSON text to values and back, with the C functions of the standard library's json.

`import json` costs 5 to 12 ms (re, enum, codecs for its error texts); `_json` costs nothing. The module is private,
so that the public one is used if it lacks a name; a test compares both.

Every value that is read can be written: infinite numbers and nesting deeper than DEPTH are errors, half a surrogate
pair becomes U+FFFD, as in Go.
"""

from __future__ import annotations

from cni.protocol.errors import DecodingFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

WHITESPACE = " \t\n\r"
DEPTH = 500  # nested objects and lists: reading and writing one takes one of the interpreter's 1000 frames
TOO_DEEP = f"is nested too deep: {DEPTH} objects and lists within each other are the limit"
INFINITY = float("inf")
DIGITS_SHOWN = 20
ESCAPED_SURROGATES = ("\\ud", "\\uD")  # the beginning of an escaped surrogate, also of a pair


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (INFINITY, -INFINITY):
        raise ValueError(f"{digits[:DIGITS_SHOWN]} is too large a number")
    return number


def _object_of(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    """Returns an object whose keys are in the order of their last occurrence: the order in which Go assigns them."""
    members: dict[str, JsonValue] = {}
    for key, value in pairs:
        members.pop(key, None)
        members[key] = value
    return members


class _Context:
    """The attributes that the scanner reads (CPython Modules/_json.c, scanner_new)."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_object_of)
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
            object_pairs_hook=_object_of, parse_float=_finite, parse_constant=_refuse_constant
        ).raw_decode
    scanner: Callable[[str, int], tuple[JsonValue, int]] = make_scanner(_Context)  # type: ignore[arg-type]  # any object with these attributes serves
    return scanner


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in WHITESPACE:
        position += 1
    return position


def _scan(text: str, start: int) -> tuple[JsonValue, int]:
    """Returns the value at `start` and its end. Raises StopIteration, ValueError, RecursionError."""
    try:
        return _scanner()(text, start)
    except SystemError:
        # Up to CPython 3.11 the scanner takes its error class from sys.modules, and fails without json.decoder.
        import json.decoder  # noqa: F401

        return _scanner()(text, start)


def parse(data: bytes, name: str) -> JsonValue:
    """Returns the value of one JSON document; errors call it `name`.

    Numbers with a fraction or an exponent become floats, others ints (as in Go).
    Raises DecodingFailure.
    """
    text = data.decode("utf-8", "replace")
    start = _skip(text, 0)
    if start == len(text):
        raise DecodingFailure(f"{name} is empty, expected a JSON object")
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise DecodingFailure(f"{name} is not JSON: unexpected text at character {stop.value}") from None
    except RecursionError:
        raise DecodingFailure(f"{name} {TOO_DEEP}") from None
    except ValueError as error:
        raise DecodingFailure(f"{name} is not JSON: {_error_text(error)}") from None
    end = _skip(text, end)
    if end != len(text):
        raise DecodingFailure(f"{name} is not JSON: more text after the value, at character {end}")
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise DecodingFailure(f"{name} {TOO_DEEP}")
    if any(escape in text for escape in ESCAPED_SURROGATES):
        return _without_surrogates(value)
    return value


def _error_text(error: ValueError) -> str:
    """Returns the message for users: without the interpreter's advice on integers of thousands of digits."""
    return "an integer has too many digits" if "set_int_max_str_digits" in str(error) else str(error)


def _depth(value: JsonValue) -> int:
    """Returns the number of objects and lists within each other."""
    depth, level = 0, [value]
    while level := [element for element in level if isinstance(element, (dict, list))]:
        depth += 1
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return depth


def _without_surrogates(value: JsonValue) -> JsonValue:
    """Returns the value with U+FFFD for each half of a surrogate pair, which neither files nor the kernel accept."""
    if isinstance(value, str):
        return "".join(["\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in value])
    if isinstance(value, dict):
        return {str(_without_surrogates(key)): _without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(inner) for inner in value]
    return value


def parse_object(data: bytes, name: str) -> dict[str, JsonValue]:
    """Parses a document that has to be an object. Raises DecodingFailure."""
    value = parse(data, name)
    if not isinstance(value, dict):
        raise DecodingFailure(f"{name} is not a JSON object")
    return value


def dump(value: JsonValue) -> str:
    """Returns compact JSON in ASCII, which no locale changes; bytes that are not UTF-8 become U+FFFD."""
    text = _dump(value)
    if ESCAPED_SURROGATES[0] in text:
        return _dump(_without_surrogates(value))
    return text


def _dump(value: JsonValue) -> str:
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:
        from json import dumps

        return dumps(value, separators=(",", ":"), allow_nan=False)
    encoder = make_encoder(
        None,
        None,  # type: ignore[arg-type]  # no default: any other value is a TypeError
        encode_basestring_ascii,
        None,
        ":",
        ",",
        False,
        False,
        False,
    )
    return "".join(encoder(value, 0))
