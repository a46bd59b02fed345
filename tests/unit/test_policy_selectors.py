"""Tests label selectors: what they match, how equal ones are told, and what they demand."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.agent.policy.jsonobject import JsonObject
from cni.agent.policy.selectors import (
    DOES_NOT_EXIST,
    EVERYTHING,
    EXISTS,
    IN,
    NOT_IN,
    Requirement,
    Selector,
    demands_met,
    read_selector,
    selector_of,
)
from cni.protocol.fields import ConfigErrors
from tests.unit.strategies import PROFILE

if TYPE_CHECKING:
    from cni.agent.policy.jsonobject import Labels
REQUIREMENTS = [
    *[
        Requirement(key, operator, values)
        for key, operator, values in product("ab", (IN, NOT_IN), (("1",), ("1", "2")))
    ],
    *[Requirement(key, operator, ()) for key, operator in product("ab", (EXISTS, DOES_NOT_EXIST))],
]
LABELS: list[Labels] = [
    tuple((key, value) for key, value in zip("ab", values, strict=True) if value)
    for values in product(("", "1", "3"), repeat=2)
]


def read(value: dict[str, Any]) -> tuple[Selector, ConfigErrors]:
    errors = ConfigErrors()
    return read_selector(JsonObject(value, "selector", errors)), errors


@pytest.mark.parametrize(
    ("requirement", "matched"),
    [
        (Requirement("a", IN, ("1", "2")), [{"a": "1"}, {"a": "2", "b": "1"}]),
        (Requirement("a", NOT_IN, ("1", "2")), [{"a": "3"}, {"a": ""}, {}, {"b": "1"}]),
        (Requirement("a", EXISTS, ()), [{"a": "1"}, {"a": "2", "b": "1"}, {"a": "3"}, {"a": ""}]),
        (Requirement("a", DOES_NOT_EXIST, ()), [{}, {"b": "1"}]),
    ],
)
def test_a_requirement_matches_by_its_operator(requirement: Requirement, matched: list[dict[str, str]]) -> None:
    labels: list[dict[str, str]] = [{"a": "1"}, {"a": "2", "b": "1"}, {"a": "3"}, {"a": ""}, {}, {"b": "1"}]
    selected = [pod_labels for pod_labels in labels if selector_of([requirement]).matches(pod_labels)]
    assert selected == matched


def test_requirements_are_anded_and_none_selects_everything() -> None:
    both = selector_of([Requirement("a", IN, ("1",)), Requirement("b", EXISTS, ())])
    assert [both.matches(pod_labels) for pod_labels in ({"a": "1", "b": ""}, {"a": "1"}, {"b": ""}, {})] == [
        True,
        False,
        False,
        False,
    ]
    assert EVERYTHING.matches({})


@pytest.mark.parametrize(
    "value",
    [
        {"matchLabels": {"a": "1", "b": "2"}},
        {"matchLabels": {"b": "2", "a": "1"}},
        {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "In", "values": ["2", "2"]}]},
        {
            "matchExpressions": [
                {"key": "b", "operator": "In", "values": ["2"]},
                {"key": "a", "operator": "In", "values": ["1"]},
                {"key": "b", "operator": "In", "values": ["2"]},
            ]
        },
    ],
)
def test_selectors_that_say_the_same_are_one_value(value: dict[str, Any]) -> None:
    selector, errors = read(value)
    assert errors.count == 0
    assert selector == selector_of([Requirement("b", IN, ("2",)), Requirement("a", IN, ("1",))])
    assert hash(selector) == hash(selector_of([Requirement("a", IN, ("1",)), Requirement("b", IN, ("2",))]))
    assert selector.keys == {"a", "b"}


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ({"operator": "Exists"}, "selector.matchExpressions[0].key: is missing"),
        ({"key": "a"}, "selector.matchExpressions[0].operator: '' is not one of In, NotIn, Exists, DoesNotExist"),
        ({"key": "a", "operator": "Gt", "values": ["1"]}, "selector.matchExpressions[0].operator: 'Gt' is not one of"),
        ({"key": "a", "operator": "In"}, "selector.matchExpressions[0].values: In needs values"),
        ({"key": "a", "operator": "NotIn", "values": []}, "selector.matchExpressions[0].values: NotIn needs values"),
        ({"key": "a", "operator": "Exists", "values": ["1"]}, "selector.matchExpressions[0].values: Exists takes no"),
        ({"key": "a", "operator": "In", "values": [1]}, "selector.matchExpressions[0].values[0]: expected a text"),
        ({"key": "a", "operator": "Exists", "value": "1"}, "selector.matchExpressions[0].value: unknown field"),
    ],
)
def test_an_error_in_an_expression_has_its_path(expression: dict[str, Any], error: str) -> None:
    _, errors = read({"matchExpressions": [expression]})
    assert errors.messages[0].startswith(error)


@pytest.mark.parametrize(
    ("requirements", "demands"),
    [
        ([], ((),)),
        ([Requirement("a", NOT_IN, ("1",)), Requirement("b", DOES_NOT_EXIST, ())], ((),)),
        ([Requirement("b", EXISTS, ()), Requirement("a", NOT_IN, ("1",))], (("b",),)),
        ([Requirement("a", IN, ("1", "2")), Requirement("b", EXISTS, ())], (("a", "1"), ("a", "2"))),
        ([Requirement("a", IN, ("1", "2")), Requirement("b", IN, ("3",))], (("b", "3"),)),
    ],
)
def test_a_selector_demands_the_fewest_pairs_that_it_can(
    requirements: list[Requirement], demands: tuple[object, ...]
) -> None:
    assert selector_of(requirements).demands == demands


@pytest.mark.parametrize("labels", LABELS)
def test_labels_that_a_selector_matches_meet_what_it_demands(labels: Labels) -> None:
    met = set(demands_met(labels))
    for count in range(4):
        for requirements in combinations(REQUIREMENTS, count):
            selector = selector_of(list(requirements))
            assert not selector.matches(dict(labels)) or met.intersection(selector.demands)


WORDS = st.sampled_from(["matchLabels", "matchExpressions", "key", "operator", "values", "In", "Exists", "a", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner) | st.dictionaries(WORDS, inner),
    max_leaves=8,
)


@pytest.mark.no_cover
@settings(PROFILE)
@given(st.dictionaries(WORDS, VALUES))
def test_a_selector_of_any_json_is_read_or_an_error(value: dict[str, Any]) -> None:
    selector, errors = read(value)
    assert errors.count or all(
        requirement.operator in (IN, NOT_IN, EXISTS, DOES_NOT_EXIST) for requirement in selector.requirements
    )
    assert errors.count or set(value) <= {"matchLabels", "matchExpressions"}
