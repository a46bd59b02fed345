"""Readers of objects: any case, last wins, null is absence, every error with its path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.protocol.address import parse_ip, parse_net
from cni.protocol.errors import InvalidConfig
from cni.protocol.fields import ConfigErrors, Fields, objects_of
from cni.protocol.jsontext import parse_object

if TYPE_CHECKING:
    from collections.abc import Callable


def fields(text: str, path: str = "") -> Fields:
    return Fields(parse_object(text.encode(), "it"), path, ConfigErrors())


READERS: dict[str, tuple[Callable[[Fields], Any], Any]] = {
    "text": (lambda document: document.text("key"), ""),
    "text with default": (lambda document: document.text("key", "default"), "default"),
    "flag": (lambda document: document.flag("key"), False),
    "integer": (lambda document: document.integer("key", 1, 9), 0),
    "integer with default": (lambda document: document.integer("key", 1, 9, 999), 999),
    "optional integer": (lambda document: document.optional_integer("key", 1, 9), None),
    "items": (lambda document: document.items("key"), []),
    "objects": (lambda document: document.objects("key"), []),
    "texts": (lambda document: document.texts("key"), ()),
    "ip": (lambda document: document.ip("key"), None),
    "net": (lambda document: document.net("key"), None),
    "mac": (lambda document: document.mac("key"), None),
}


@pytest.mark.parametrize("text", ["{}", '{"key": null}', '{"other": 1}'])
@pytest.mark.parametrize(("read", "default"), READERS.values(), ids=READERS)
def test_what_is_absent_or_null_is_the_default(read: Callable[[Fields], Any], default: Any, text: str) -> None:
    document = fields(text)
    assert read(document) == default
    assert document.errors.messages == []


@pytest.mark.parametrize(
    ("reader", "value", "result"),
    [
        ("text", '"a"', "a"),
        ("text", '""', ""),
        ("flag", "true", True),
        ("flag", "false", False),
        ("integer", "1", 1),
        ("integer", "9", 9),
        ("integer with default", "999", 999),
        ("optional integer", "1", 1),
        ("items", "[1, null]", [1, None]),
        ("texts", '["a", ""]', ("a", "")),
        ("ip", '"10.1.2.3"', parse_ip("10.1.2.3")),
        ("ip", '""', None),
        ("net", '"10.1.2.3/24"', parse_net("10.1.2.3/24")),
        ("mac", '"0a:58:0a:01:02:03"', b"\x0a\x58\x0a\x01\x02\x03"),
    ],
)
@pytest.mark.parametrize("key", ["key", "KEY", "Key", "kEy"])
def test_a_key_is_read_in_any_case(reader: str, value: str, result: Any, key: str) -> None:
    document = fields(f'{{"{key}": {value}}}')
    assert READERS[reader][0](document) == result
    assert document.errors.messages == []


@pytest.mark.parametrize(
    ("reader", "value", "error"),
    [
        ("text", "1", "expected a text"),
        ("text", "[]", "expected a text"),
        ("text with default", '"a\\u0000b"', "holds a NUL character"),
        ("ip", '"::\\u0000"', "holds a NUL character"),
        ("flag", "1", "expected true or false"),
        ("flag", '"true"', "expected true or false"),
        ("integer", "true", "expected an integer"),
        ("integer", "5.0", "expected an integer"),
        ("integer", '"5"', "expected an integer"),
        ("integer", "10", "10 is not between 1 and 9"),
        ("integer", "-1", "-1 is not between 1 and 9"),
        ("optional integer", "0", "0 is not between 1 and 9"),
        ("optional integer", "{}", "expected an integer"),
        ("items", "{}", "expected a list"),
        ("objects", '"a"', "expected a list"),
        ("texts", "{}", "expected a list"),
        ("ip", "1", "expected a text"),
        ("ip", '"10.1.2"', "'10.1.2' is not an IP address"),
        ("net", '"10.1.2.3"', "'10.1.2.3' has no prefix length (as in 10.1.2.3/24)"),
        ("mac", '"a"', "'a' is not a MAC address (as in 0a:58:0a:01:02:03)"),
    ],
)
def test_a_fault_names_its_path_and_leaves_a_default(reader: str, value: str, error: str) -> None:
    read, default = READERS[reader]
    document = fields(f'{{"key": {value}}}', "a.b[0]")
    result = read(document)
    assert document.errors.messages == [f"a.b[0].key: {error}"]
    assert result == (1 if reader == "optional integer" else default)


def test_the_last_of_several_spellings_wins() -> None:
    document = fields('{"MTU": 1, "mtu": 2, "Mtu": 3, "MTU": 4}')
    assert document.integer("mtu", 0, 9) == 4


def test_a_key_is_there_even_as_null() -> None:
    document = fields('{"Key": null}')
    assert document.has("key")
    assert not document.has("other")
    assert document.raw("key") is None


def test_objects_nest_with_their_path() -> None:
    document = fields('{"a": {"B": {"c": 1}}}')
    inner = document.object("a").object("b")
    inner.text("c")
    document.object("absent").error("d", "missing")
    document.error("e", "odd")
    assert document.errors.messages == ["a.b.c: expected a text", "absent.d: missing", "e: odd"]


def test_a_value_that_is_no_object_reads_as_an_empty_one() -> None:
    document = fields('{"a": []}')
    assert document.object("a").text("b") == ""
    assert document.errors.messages == ["a: expected an object"]


def test_members_of_a_list_are_named_by_their_place() -> None:
    document = fields('{"list": [{"a": 1}, 2, {"a": "x"}], "texts": ["a", 1, "b", null]}')
    assert [item.text("a") for item in document.objects("list")] == ["", "x"]
    assert document.texts("texts") == ("a", "b")
    assert document.errors.messages == [
        "list[1]: expected an object",
        "list[0].a: expected a text",
        "texts[1]: expected a text",
        "texts[3]: expected a text",
    ]


def test_objects_of_a_list_share_its_faults() -> None:
    errors = ConfigErrors()
    assert [document.path for document in objects_of([{}, None, {}], "x", errors)] == ["x[0]", "x[2]"]
    assert errors.messages == ["x[1]: expected an object"]


def test_half_a_character_is_replaced_as_in_go() -> None:
    document = fields('{"text": "a\\ud800b\\udc00", "texts": ["\\ud83d\\ude00\\ud83d"]}')
    assert document.text("text") == "a\ufffdb\ufffd"
    assert document.texts("texts") == ("\U0001f600\ufffd",)


def test_all_faults_are_refused_in_one() -> None:
    errors = ConfigErrors()
    errors.raise_if_any()
    errors.add("a", "odd")
    errors.add("b", "even")
    with pytest.raises(InvalidConfig) as refusal:
        errors.raise_if_any()
    assert refusal.value.message == "invalid network configuration: a: odd; b: even"


def test_a_message_holds_as_many_errors_as_have_room_and_counts_the_others() -> None:
    errors = ConfigErrors()
    for number in range(1000):
        errors.add(f"key{number}", "is wrong")
    assert errors.count == 1000
    assert 10 < len(errors.messages) < 1000
    errors.add("short", "")
    assert "short: " not in errors.messages
    with pytest.raises(InvalidConfig, match=f"{1001 - len(errors.messages)} more$"):
        errors.raise_if_any()


@pytest.mark.parametrize("path", ["/" + "a" * 256, "/a" * 2000])
def test_a_path_that_no_file_can_have_is_an_error(path: str) -> None:
    reader = fields(f'{{"key": "{path}"}}')
    assert reader.file_path("key") == ""
    assert reader.errors.count == 1
    assert fields(f'{{"key": "{path[:255]}"}}').file_path("key") == path[:255]
