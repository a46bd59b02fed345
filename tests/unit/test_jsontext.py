"""JSON in both directions: the public module's scanner in Python is the oracle of the C functions."""

from __future__ import annotations

import json
import json.scanner
import random
import sys
from typing import Any

import pytest

from cni.protocol import jsontext
from cni.protocol.errors import DecodingFailure

DEEP = 100_000

VALID = [
    "{}",
    " \t\r\n[1, 2.5, -0, 1e3, -1.5E-2]\n",
    '{"a": [true, false, null], "b": {"c": "d"}}',
    '"\\u00e9\\ud83d\\ude00\\n\\"\\\\\\/"',
    '"\\\\ud800"',
    "123456789012345678901234567890",
    "1e308",
    '{"": 1}',
    '"日本"',
]
MALFORMED = [
    "{",
    "[",
    "[1,]",
    '{"a":1,}',
    '{"a"}',
    '{"a":}',
    "{a:1}",
    "{'a':1}",
    '"',
    '"\\x"',
    '"\\u12"',
    '"\n"',
    '"\x01"',
    "nul",
    "True",
    "NaN",
    "Infinity",
    "-Infinity",
    '{"a": NaN}',
    "-",
    "+1",
    ".5",
    "\ufeff{}",
    "\x00{}",
    "\xa0{}",
    "// {}",
]
TRAILING = ["{} {}", "{}x", "1 2", "{},", "null null", "01", "1.", "1.e5", "0x1"]


def refuse(name: str) -> float:
    raise ValueError(name)


def last_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        members.pop(key, None)
        members[key] = value
    return members


def oracle(text: str) -> Any:
    """Returns a document's value by the public module's scanner in Python. Raises ValueError, RecursionError."""
    decoder = json.JSONDecoder(object_pairs_hook=last_wins, parse_constant=refuse)
    decoder.scan_once = json.scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]  # typeshed lacks it
    return decoder.decode(text)


def outcome(text: str) -> str:
    """Returns the parsed document in a form that compares nan and equal values of two types (1 and 1.0)."""
    try:
        return repr(jsontext.parse(text.encode("utf-8", "surrogatepass"), "it"))
    except DecodingFailure:
        return "refused"


def expected(text: str) -> str:
    try:
        return repr(oracle(text))
    except (ValueError, RecursionError):
        return "refused"


@pytest.fixture(params=["C halves", "public module"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The private module, and the public one if the interpreter has no private one."""
    if request.param == "public module":
        monkeypatch.setitem(sys.modules, "_json", None)
    return str(request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("text", VALID)
def test_a_document_has_the_value_that_the_standard_library_gives_it(text: str) -> None:
    assert outcome(text) == expected(text) != "refused"


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_json_is_refused_and_named(text: str) -> None:
    assert expected(text) == "refused"
    with pytest.raises(DecodingFailure, match=r"^stdin is not JSON: "):
        jsontext.parse(text.encode(), "stdin")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("text", TRAILING)
def test_more_text_after_the_value_is_refused(text: str) -> None:
    assert expected(text) == "refused"
    with pytest.raises(DecodingFailure, match=r"^stdin is not JSON: more text after the value, at character [1-5]$"):
        jsontext.parse(text.encode(), "stdin")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("data", [b"", b" \n\t\r "])
def test_an_empty_document_is_named_so(data: bytes) -> None:
    with pytest.raises(DecodingFailure, match=r"^stdin is empty, expected a JSON object$"):
        jsontext.parse(data, "stdin")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("depth", [jsontext.DEPTH + 1, jsontext.DEPTH * 2, DEEP])
def test_nesting_beyond_measure_is_refused(opening: str, closing: str, depth: int) -> None:
    """The limit is lower than that of reading: a document nested almost as deep could not be written."""
    with pytest.raises(DecodingFailure, match=r"^stdin is nested too deep: 500 objects"):
        jsontext.parse(f"{opening * depth}1{closing * depth}".encode(), "stdin")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_the_deepest_nesting_that_is_read_can_be_written(opening: str, closing: str) -> None:
    text = f"{opening * jsontext.DEPTH}{closing * jsontext.DEPTH}".replace(":}", ":1}")
    assert jsontext.dump(jsontext.parse(text.encode(), "stdin")) == text


@pytest.mark.usefixtures("way")
def test_many_lists_beside_each_other_are_not_deep() -> None:
    text = f"[{','.join(['[]'] * 2 * jsontext.DEPTH)}]"
    assert jsontext.dump(jsontext.parse(text.encode(), "stdin")) == text


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("number", ["1e400", "-1E400", "1" + "0" * 400 + ".0", "1.5e+99999"])
def test_a_number_that_no_float_holds_is_refused(number: str) -> None:
    with pytest.raises(DecodingFailure, match=r"^stdin is not JSON: .* is too large a number$"):
        jsontext.parse(f'{{"a": [{number}]}}'.encode(), "stdin")


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("half", ["\\ud800", "\\uDC00", "\\udc00\\ud800"])
def test_half_a_surrogate_pair_is_replaced_as_in_go(half: str) -> None:
    value = jsontext.parse(f'{{"a{half}": ["{half}x", "\\ud83d\\ude00", {{"b": "{half}"}}]}}'.encode(), "stdin")
    whole = "\ufffd" * (len(half) // 6)
    assert value == {f"a{whole}": [f"{whole}x", "\U0001f600", {"b": whole}]}


@pytest.mark.usefixtures("way")
def test_a_byte_of_the_environment_that_is_no_utf8_is_replaced_when_it_is_written() -> None:
    assert jsontext.dump({"\udcff": ["\udcff", "\U0001f600", "\\ud800"]}) == (
        '{"\\ufffd":["\\ufffd","\\ud83d\\ude00","\\\\ud800"]}'
    )


@pytest.mark.usefixtures("way")
def test_an_integer_beyond_measure_is_refused() -> None:
    with pytest.raises(DecodingFailure, match=r"^stdin is not JSON: "):
        jsontext.parse(b"1" * DEEP, "stdin")


@pytest.mark.usefixtures("way")
def test_of_keys_that_repeat_the_last_wins_in_its_place() -> None:
    members = jsontext.parse_object(b'{"a": 1, "b": 2, "a": 3}', "it")
    assert list(members.items()) == [("b", 2), ("a", 3)]


@pytest.mark.usefixtures("way")
def test_numbers_keep_their_kind() -> None:
    value = jsontext.parse(b"[1500, 1500.0, 15e2, true]", "it")
    assert isinstance(value, list)
    assert [type(element) for element in value] == [int, float, float, bool]


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert jsontext.parse(b'"a\xff\xc3"', "it") == "a\ufffd\ufffd"


@pytest.mark.parametrize("text", ["[]", '"a"', "1", "null"])
def test_what_is_no_object_is_refused_where_one_is_needed(text: str) -> None:
    with pytest.raises(DecodingFailure, match=r"^stdin is not a JSON object$"):
        jsontext.parse_object(text.encode(), "stdin")


def test_an_object_is_given_where_one_is_needed() -> None:
    assert jsontext.parse_object(b'{"a": 1}', "stdin") == {"a": 1}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -2.5, True, False, None], "b": {}, "c": []},
        {"text": 'quote " backslash \\ control \x00\x1f\x7f newline \n'},
        {"letters": "é日😀"},
        [1 << 70, 1e300, 0.1],
    ],
)
def test_what_is_dumped_is_what_the_standard_library_dumps(value: Any) -> None:
    text = jsontext.dump(value)
    assert text == json.dumps(value, separators=(",", ":"))
    assert text.isascii()
    assert jsontext.parse(text.encode(), "it") == value


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_lacks_is_never_dumped(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsontext.dump([value])


@pytest.mark.usefixtures("way")
def test_a_value_that_json_lacks_is_never_dumped() -> None:
    alien: Any = {"a": {1, 2}}
    with pytest.raises(TypeError):
        jsontext.dump(alien)


@pytest.mark.usefixtures("way")
def test_members_keep_their_order_and_keys_are_texts() -> None:
    assert jsontext.dump({"b": 1, "a": {"d": 2, "c": 3}}) == '{"b":1,"a":{"d":2,"c":3}}'
    alien: Any = {("a", "tuple"): 1}
    with pytest.raises(TypeError):
        jsontext.dump(alien)


def random_text(chance: random.Random, depth: int) -> str:
    kind = chance.randrange(8 if depth else 6)
    if kind == 6:
        return "[" + ",".join([random_text(chance, depth - 1) for _ in range(chance.randrange(4))]) + "]"
    if kind == 7:
        pairs = [f'"{chance.choice("abA")}": {random_text(chance, depth - 1)}' for _ in range(chance.randrange(4))]
        return "{" + ", ".join(pairs) + "}"
    number = str(chance.randrange(-(10**6), 10**6))
    literals = ["null", "true", f"{number}.5e{chance.randrange(-3, 3)}", '"\\u00e9 x"', f'"é{number}"', number]
    return literals[kind]


def mutated(chance: random.Random, text: str) -> str:
    start = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.randrange(3))
    return text[:start] + chance.choice(["", "", '"', "}", "]", ",", ":", "\\", "\\u", "{", "0", "é", " "]) + text[end:]


def test_random_documents_whole_and_damaged_have_one_meaning() -> None:
    chance = random.Random(1)
    refused = 0
    for _ in range(3000):
        text = random_text(chance, 4)
        assert outcome(text) == expected(text) != "refused"
        for _ in range(chance.randrange(3)):
            text = mutated(chance, text)
        assert outcome(text) == expected(text), text
        refused += outcome(text) == "refused"
    assert refused > 500


def test_a_scanner_that_misses_its_errors_class_scans_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scanner, calls = jsontext._scanner(), []

    def scan(text: str, start: int) -> Any:
        calls.append(start)
        if len(calls) == 1:
            raise SystemError("error return without exception set")
        return scanner(text, start)

    monkeypatch.setattr(jsontext, "_scanner", lambda: scan)
    assert jsontext.parse(b'{"a": 1}', "it") == {"a": 1}
    assert len(calls) == 2
