"""Label selectors: equal ones are equal as values, in whatever form and order they were written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cni.agent.policy.jsonobject import JsonObject, Labels

    # What labels must have: a pair of key and value, a key with any value, or nothing.
    Demand = tuple[str, str] | tuple[str] | tuple[()]

IN, NOT_IN, EXISTS, DOES_NOT_EXIST = "In", "NotIn", "Exists", "DoesNotExist"
OPERATORS = (IN, NOT_IN, EXISTS, DOES_NOT_EXIST)


class Requirement(Record):
    """A condition on the label `key`; `values` are sorted, and empty for Exists and DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...]

    def is_met(self, labels: Mapping[str, str]) -> bool:
        """True if labels meet it. NotIn and DoesNotExist are met where the key is missing."""
        value = labels.get(self.key)
        if self.operator == IN:
            return value is not None and value in self.values
        if self.operator == NOT_IN:
            return value is None or value not in self.values
        return (value is not None) == (self.operator == EXISTS)


class Selector(Record):
    """Requirements that must all be met, sorted, each once; without one it selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.is_met(labels) for requirement in self.requirements)

    @property
    def keys(self) -> frozenset[str]:
        """The labels on which the answer depends."""
        return frozenset([requirement.key for requirement in self.requirements])

    @property
    def demands(self) -> tuple[Demand, ...]:
        """One of these must be among `demands_met` of the labels, or the selector does not match: the fewest pairs that
        a requirement names, else a key, else nothing.
        """
        named = [requirement for requirement in self.requirements if requirement.operator == IN]
        if named:
            narrowest = min(named, key=lambda requirement: len(requirement.values))
            return tuple([(narrowest.key, value) for value in narrowest.values])
        keys = [requirement.key for requirement in self.requirements if requirement.operator == EXISTS]
        return ((keys[0],) if keys else (),)


EVERYTHING = Selector()


def demands_met(labels: Labels) -> Iterator[Demand]:
    """Yields all that a selector may demand of these labels."""
    yield ()
    for pair in labels:
        yield pair
        yield pair[:1]


def selector_of(requirements: list[Requirement]) -> Selector:
    """Returns the selector of requirements in any order."""
    return Selector(tuple(sorted(set(requirements))))


def read_selector(fields: JsonObject) -> Selector:
    """Returns a selector of matchLabels and matchExpressions, and notes every error in it."""
    fields.unknown_keys("matchLabels", "matchExpressions")
    requirements = [Requirement(key, IN, (value,)) for key, value in fields.labels("matchLabels")]
    requirements += [_requirement(expression) for expression in fields.objects("matchExpressions")]
    return selector_of(requirements)


def _requirement(fields: JsonObject) -> Requirement:
    fields.unknown_keys("key", "operator", "values")
    key, operator, values = fields.text("key"), fields.text("operator"), fields.texts("values")
    if not key:
        fields.error("key", "is missing")
    if operator not in OPERATORS:
        fields.error("operator", f"{operator!r} is not one of {', '.join(OPERATORS)}")
    elif (operator in (IN, NOT_IN)) != bool(values):
        fields.error("values", f"{operator} {'takes no' if values else 'needs'} values")
    return Requirement(key, operator, tuple(sorted(set(values))))
