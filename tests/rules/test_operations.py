"""Every operation is complete: it has effects, and was shown to people in a plan or a test."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

import pytest

from cni.effects import not_released, nothing_differs
from cni.effects.engine import FILES as FILES_OF_EFFECTS
from cni.effects.engine import effect_of
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


def reached(file: str) -> set[str]:
    """The files of all that a module may load, at its start or later."""
    seen, waiting = set[str](), [file]
    while waiting:
        module = waiting.pop()
        seen.add(module)
        loads = {f"{each.module.replace('.', '/')}.py" for each in imports(module) if not each.typing}
        waiting += [each for each in loads if each in FILES and each not in seen]
    return seen


def attaching() -> set[str]:
    """Returns the operations that the plan of an attachment is made of; the others are those of chained plugins."""
    return set(KINDS) & {name for file in reached("cni/plan/plan.py") for name, _ in calls(file)}


def test_an_operation_is_a_record_that_describes_itself() -> None:
    assert len(KINDS) > 20
    assert all(issubclass(kind, Record) for kind in KINDS.values())
    assert all(list(signature(kind.describe).parameters) == ["self"] for kind in KINDS.values())


def test_every_operation_has_effects_and_every_effect_an_operation() -> None:
    files = {file: import_module(f"cni.effects.{file}").EFFECTS for file in FILES_OF_EFFECTS.values()}
    assert {name: file for file, effects in files.items() for name in effects} == FILES_OF_EFFECTS
    assert set(FILES_OF_EFFECTS) == set(KINDS)


@pytest.mark.parametrize("name", FILES_OF_EFFECTS)
def test_every_effect_is_a_function_for_its_operation(name: str) -> None:
    effect = effect_of(name)
    functions: list[Callable[..., Any]] = [effect.apply, effect.release, effect.differs]
    for function, parameters in zip(
        functions, (["host", "op", "journal"], ["host", "op"], ["host", "op"]), strict=True
    ):
        assert list(signature(function).parameters) == parameters
        assert function in (not_released, nothing_differs) or function.__annotations__["op"] == name


def test_every_operation_of_an_attachment_is_shown_by_a_golden_case() -> None:
    shown = {type(operation).__name__ for name in CASES for operation in case(name).plan.operations}
    assert shown == attaching()


def test_every_operation_of_chained_plugins_is_described_in_a_unit_test() -> None:
    chained = set(KINDS) - attaching()
    unit = [path.read_text() for path in sorted((ROOT / "tests/unit").glob("test_*.py"))]
    assert "LoopbackUp" in chained
    assert {name for name in chained if not any(f"{name}(" in text and ".describe()" in text for text in unit)} == set()
