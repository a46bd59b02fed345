"""Records at run time behave as typing.NamedTuple, which type checkers see, except for equality across types."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from cni.protocol.record import Record


class Point(Record):
    x: int
    y: int = 2

    @property
    def sum(self) -> int:
        return self.x + self.y


class Original(NamedTuple):
    x: int
    y: int = 2


class Pair(Record):
    x: int
    y: int = 2


class Nothing(Record):
    pass


LOOSE: Any = Point  # calls that a type checker would refuse


@pytest.mark.parametrize("kind", [Point, Original])
def test_values_are_given_by_place_by_name_or_by_default(kind: Any) -> None:
    records = [kind(1), kind(1, 2), kind(1, y=2), kind(x=1), kind(y=2, x=1)]
    assert all(instance == records[0] for instance in records)
    assert (records[0].x, records[0].y) == (1, 2)
    assert kind(1, 3).y == kind(1, y=3).y == 3


@pytest.mark.parametrize("kind", [Point, Original])
@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((), {"y": 1}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((1, 2), {"z": 1})],
)
def test_values_missing_doubled_or_unknown_are_type_errors(
    kind: Any, values: tuple[int, ...], named: dict[str, int]
) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


@pytest.mark.parametrize(
    ("values", "named", "error"),
    [
        ((), {}, "Point needs 'x'"),
        ((1, 2, 3), {}, "Point takes ('x', 'y')"),
        ((1,), {"z": 1, "a": 2}, "Point takes ('x', 'y'), not ['a', 'z']"),
    ],
)
def test_what_is_wrong_with_the_values_is_named(values: tuple[int, ...], named: dict[str, int], error: str) -> None:
    with pytest.raises(TypeError) as refusal:
        LOOSE(*values, **named)
    assert str(refusal.value) == error


@pytest.mark.parametrize("kind", [Point, Original])
def test_a_record_is_a_tuple(kind: Any) -> None:
    instance = kind(1)
    first, second = instance
    assert (first, second) == (1, 2)
    assert instance[1] == 2
    assert len(instance) == 2
    assert tuple(instance) == (1, 2)
    assert kind(1) < kind(2)


@pytest.mark.parametrize("kind", [Point, Original])
def test_a_record_cannot_be_changed(kind: Any) -> None:
    instance = kind(1)
    with pytest.raises(AttributeError):
        instance.x = 2
    with pytest.raises(AttributeError):
        instance.z = 2


def test_a_record_with_other_values_is_another_record() -> None:
    instance = Point(1)
    assert instance._replace(y=5) == Point(1, 5)
    assert instance == Point(1)
    assert instance._asdict() == {"x": 1, "y": 2}
    assert Point._fields == ("x", "y")
    with pytest.raises(TypeError):
        LOOSE(1)._replace(z=1)


def test_records_are_equal_within_their_type_alone() -> None:
    assert Point(1) == Point(1)
    assert not Point(1) != Point(1)  # noqa: SIM202  # the operator itself is on trial
    assert Point(1) != Point(2)
    other: object = Pair(1)
    assert Point(1) != other
    assert not Point(1) == other  # noqa: SIM201  # the operator itself is on trial
    assert Point(1) != (1, 2)
    assert Nothing() != ()
    assert Nothing() == Nothing()


def test_records_of_different_types_share_a_set() -> None:
    assert hash(Point(1)) == hash(Point(1))
    assert len({Point(1), Pair(1), Point(1), (1, 2)}) == 3


def test_a_record_shows_its_fields() -> None:
    assert repr(Point(1)) == "Point(x=1, y=2)"
    assert Point(1).sum == 3


def test_a_record_can_be_matched() -> None:
    instance: object = Point(1, 7)
    match instance:
        case Pair(x=_):
            value = -1
        case Point(1, second):
            value = second
        case _:
            value = 0
    assert value == 7
