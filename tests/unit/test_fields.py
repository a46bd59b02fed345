"""Reading objects: any case, last wins, null is absence, every fault with its path."""

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
    "text": (lambda one: one.text("key"), ""),
    "text with default": (lambda one: one.text("key", "default"), "default"),
    "flag": (lambda one: one.flag("key"), False),
    "integer": (lambda one: one.integer("key", 1, 9), 0),
    "integer with default": (lambda one: one.integer("key", 1, 9, 999), 999),
    "optional integer": (lambda one: one.optional_integer("key", 1, 9), None),
    "items": (lambda one: one.items("key"), []),
    "objects": (lambda one: one.objects("key"), []),
    "texts": (lambda one: one.texts("key"), ()),
    "ip": (lambda one: one.ip("key"), None),
    "net": (lambda one: one.net("key"), None),
    "mac": (lambda one: one.mac("key"), None),
}


@pytest.mark.parametrize("text", ["{}", '{"key": null}', '{"other": 1}'])
@pytest.mark.parametrize(("read", "default"), READERS.values(), ids=READERS)
def test_what_is_absent_or_null_is_the_default(read: Callable[[Fields], Any], default: Any, text: str) -> None:
    one = fields(text)
    assert read(one) == default
    assert one.errors.messages == []


@pytest.mark.parametrize(
    ("reader", "value", "found"),
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
def test_a_key_is_read_in_any_case(reader: str, value: str, found: Any, key: str) -> None:
    one = fields(f'{{"{key}": {value}}}')
    assert READERS[reader][0](one) == found
    assert one.errors.messages == []


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
    one = fields(f'{{"key": {value}}}', "a.b[0]")
    found = read(one)
    assert one.errors.messages == [f"a.b[0].key: {error}"]
    assert found == (1 if reader == "optional integer" else default)


def test_the_last_of_several_spellings_wins() -> None:
    one = fields('{"MTU": 1, "mtu": 2, "Mtu": 3, "MTU": 4}')
    assert one.integer("mtu", 0, 9) == 4


def test_a_key_is_there_even_as_null() -> None:
    one = fields('{"Key": null}')
    assert one.has("key")
    assert not one.has("other")
    assert one.raw("key") is None


def test_objects_nest_with_their_path() -> None:
    one = fields('{"a": {"B": {"c": 1}}}')
    inner = one.object("a").object("b")
    inner.text("c")
    one.object("absent").error("d", "missing")
    one.error("e", "odd")
    assert one.errors.messages == ["a.b.c: expected a text", "absent.d: missing", "e: odd"]


def test_a_value_that_is_no_object_reads_as_an_empty_one() -> None:
    one = fields('{"a": []}')
    assert one.object("a").text("b") == ""
    assert one.errors.messages == ["a: expected an object"]


def test_members_of_a_list_are_named_by_their_place() -> None:
    one = fields('{"list": [{"a": 1}, 2, {"a": "x"}], "texts": ["a", 1, "b", null]}')
    assert [item.text("a") for item in one.objects("list")] == ["", "x"]
    assert one.texts("texts") == ("a", "b")
    assert one.errors.messages == [
        "list[1]: expected an object",
        "list[0].a: expected a text",
        "texts[1]: expected a text",
        "texts[3]: expected a text",
    ]


def test_objects_of_a_list_share_its_faults() -> None:
    errors = ConfigErrors()
    assert [one.path for one in objects_of([{}, None, {}], "x", errors)] == ["x[0]", "x[2]"]
    assert errors.messages == ["x[1]: expected an object"]


def test_half_a_character_is_replaced_as_in_go() -> None:
    one = fields('{"text": "a\\ud800b\\udc00", "texts": ["\\ud83d\\ude00\\ud83d"]}')
    assert one.text("text") == "a\ufffdb\ufffd"
    assert one.texts("texts") == ("\U0001f600\ufffd",)


def test_all_faults_are_refused_in_one() -> None:
    errors = ConfigErrors()
    errors.raise_if_any()
    errors.add("a", "odd")
    errors.add("b", "even")
    with pytest.raises(InvalidConfig) as refusal:
        errors.raise_if_any()
    assert refusal.value.message == "invalid network configuration: a: odd; b: even"
