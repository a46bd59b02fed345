"""Every operation is complete: it has effects, and was shown to people in a plan or a test."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest

from cni.effects import engine
from cni.effects.engine import EFFECTS, Effect
from cni.protocol.record import Record
from tests.golden.cases import CASES, case
from tests.rules.source import FILES, ROOT, calls, imports, module_of

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = [import_module(module_of(file)) for file in FILES if file.startswith("cni/plan/")]
KINDS = {
    name: kind
    for room in PLAN
    for name, kind in vars(room).items()
    if isinstance(kind, type) and hasattr(kind, "describe") and kind.__module__ == room.__name__
}
UNIT = [path.read_text() for path in sorted((ROOT / "tests/unit").glob("test_*.py"))]


def reached(file: str) -> set[str]:
    """The files of all that a module may load, at its start or later."""
    found, waiting = set[str](), [file]
    while waiting:
        one = waiting.pop()
        found.add(one)
        loads = {f"{each.module.replace('.', '/')}.py" for each in imports(one) if not each.typing}
        waiting += [each for each in loads if each in FILES and each not in found]
    return found


# What the plan of an attachment is made of; the rest is of chained plugins.
ATTACHING = set(KINDS) & {name for file in reached("cni/plan/plan.py") for name, _ in calls(file)}


def test_an_operation_is_a_record_that_describes_itself() -> None:
    assert len(KINDS) > 20
    assert all(issubclass(kind, Record) for kind in KINDS.values())
    assert all(list(signature(kind.describe).parameters) == ["self"] for kind in KINDS.values())


def test_every_operation_has_effects_and_every_effect_an_operation() -> None:
    assert set(EFFECTS) == set(KINDS)


def functions_of(effect: Effect) -> list[Callable[..., Any]]:
    """With those in place that are looked up at their first use."""
    found = []
    for function in effect:
        if function.__qualname__.endswith("<locals>.enter"):
            told = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
            room, name = (told[key].cell_contents for key in ("room", "name"))
            found.append(getattr(import_module(f"cni.effects.{room}"), name))
        else:
            found.append(function)
    return found


@pytest.mark.parametrize("name", EFFECTS)
def test_every_effect_is_a_function_for_its_operation(name: str) -> None:
    """Also those that are entered lazily, by a name that only a call would find missing."""
    functions = functions_of(EFFECTS[name])
    for function, parameters in zip(
        functions, (["host", "op", "journal"], ["host", "op"], ["host", "op"]), strict=True
    ):
        assert list(signature(function).parameters) == parameters
        told = function.__annotations__["op"]
        assert told == name or function in (engine.not_released, engine.nothing_differs)


def test_some_effects_are_entered_at_their_first_use() -> None:
    lazy = {name for name, effect in EFFECTS.items() if effect.apply.__qualname__.endswith("<locals>.enter")}
    assert {"HostPort", "Ifb"} <= lazy
    assert "Veth" not in lazy


def test_every_operation_of_an_attachment_is_shown_by_a_golden_case() -> None:
    shown = {type(operation).__name__ for name in CASES for operation in case(name).plan.operations}
    assert ATTACHING - shown == set()
    assert shown <= ATTACHING


def test_every_operation_of_chained_plugins_is_described_in_a_unit_test() -> None:
    chained = set(KINDS) - ATTACHING
    assert "LoopbackUp" in chained
    assert {name for name in chained if not any(f"{name}(" in text and ".describe()" in text for text in UNIT)} == set()
