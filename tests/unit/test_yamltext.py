"""YAML as people and kubectl write it, and what of YAML is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.agent.stores.policy.yamltext import DEPTH, parse_documents
from cni.protocol.errors import DecodingFailure
from tests.unit.strategies import PROFILE

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)  # a codec takes 2 s to explore
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXTS.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=20,
)


def parsed(text: str) -> list[Any]:
    return parse_documents(text.encode(), "it.yaml")


@pytest.mark.no_cover
@settings(PROFILE)
@given(st.lists(VALUES.filter(lambda value: value is not None), max_size=3))
def test_what_yaml_writes_is_read(documents: list[Any]) -> None:
    text = yaml.safe_dump_all(documents)
    if text.strip():
        assert parsed(text) == documents


@pytest.mark.no_cover
@settings(PROFILE)
@given(VALUES.filter(lambda value: value is not None))
def test_json_is_yaml(value: Any) -> None:
    assert parsed(json.dumps(value)) == [value]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80), ("-1", -1), ("+1", 1), ("0", 0), ("1.5", 1.5), ("1e3", 1000.0), (".5", 0.5),
        ("010", "010"), ("0x10", "0x10"), ("1_000", "1_000"), ("-a", "-a"), ("1.2.3", "1.2.3"), ("9" * 30, "9" * 30),
        ("1e999", "1e999"), (".nan", ".nan"), ("-.inf", "-.inf"), ("v1", "v1"),
        ("12:30:45", "12:30:45"), ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"), ("2026-01-01", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"), ("10.0.0.0/8", "10.0.0.0/8"), ("=", "="), ("٣", "٣"),
        ("yes", True), ("Off", False), ("true", True), ("~", None), ("null", None), ("", None), ("y", "y"),
        ("'80'", "80"), ('"yes"', "yes"), ("!!str 80", "80"), ("! 80", "80"), ("|\n  on\n", "on\n"), ("&anchor x", "x"),
    ],
)  # fmt: skip
def test_a_plain_text_is_what_it_looks_like(text: str, value: Any) -> None:
    (document,) = parsed(f"key: {text}")
    assert document == {"key": value}
    assert type(document["key"]) is type(value)


def test_a_key_is_a_text() -> None:
    assert parsed("on: 1\n80: 2\n~: 3\n? \n: 4\n") == [{"on": 1, "80": 2, "~": 3, "": 4}]


def test_escaped_surrogates_are_one_character_or_none() -> None:
    assert parsed('["\\ud83d\\ude00", "\\ud83d"]') == [["\U0001f600", "\ufffd"]]


def test_documents_that_are_empty_do_not_count() -> None:
    assert parsed("---\n# nothing\n---\na: 1\n---\n---\n- b\n...\n") == [{"a": 1}, ["b"]]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "it.yaml is empty"),
        (" \n", "it.yaml is empty"),
        ("[a", "it.yaml is not YAML: line 1: expected ',' or ']', but got '<stream end>'"),
        ("a: b\n\tc: d", "it.yaml is not YAML: line 2: found character '\\t' that cannot start any token"),
        ("a: b: c", "it.yaml is not YAML: line 1: mapping values are not allowed here"),
        ("a: \x01", "it.yaml is not YAML: it has characters that are not text"),
        ('"\\U7fffffff"', "it.yaml is not YAML: it has characters that are not text"),
        ("a: &x [1]\nb: *x", "it.yaml is not supported YAML: line 2: alias *x (write what it stands for)"),
        ("a: 1\nb: 2\na: 3", "it.yaml is not supported YAML: line 3: duplicate key 'a'"),
        ("<<: {a: 1}", "it.yaml is not supported YAML: line 1: merge key '<<'"),
        ("a: !!binary YQ==", "it.yaml is not supported YAML: line 1: tag tag:yaml.org,2002:binary"),
        ("a: !!set {b}", "it.yaml is not supported YAML: line 1: tag tag:yaml.org,2002:set"),
        ("a: !!python/name:os.system ''", "line 1: tag tag:yaml.org,2002:python/name:os.system"),
        ("? [a]\n: b", "it.yaml is not supported YAML: line 1: a key that is not a text"),
        ("? {a: b}\n: b", "it.yaml is not supported YAML: line 1: a key that is not a text"),
        ("[" * (DEPTH + 1), "line 1: nested too deep: 100 mappings and sequences within each other"),
        ("{a: " * 100_000, "line 1: nested too deep: 100 mappings and sequences within each other"),
    ],
)
def test_what_is_no_yaml_or_more_than_json_has_is_refused_with_its_line(text: str, error: str) -> None:
    with pytest.raises(DecodingFailure) as raised:
        parsed(text)
    assert error in raised.value.message


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(DecodingFailure, match=r"it\.yaml is not YAML: it has characters that are not text"):
        parse_documents(b"a: \xff", "it.yaml")


def test_the_depth_that_is_allowed_is_read() -> None:
    (document,) = parsed("[" * DEPTH + "]" * DEPTH)
    assert str(document) == "[" * DEPTH + "]" * DEPTH
