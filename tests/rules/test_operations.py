"""Every operation is complete: it has effects, and a plan that was reviewed shows it."""

from __future__ import annotations

from typing import get_args

from cni.kernel.apply import EFFECTS
from cni.plan import operations
from tests.golden.cases import CASES, case

KINDS = set(get_args(operations.Operation))


def test_the_vocabulary_is_whole() -> None:
    records = {kind for kind in vars(operations).values() if isinstance(kind, type) and hasattr(kind, "describe")}
    assert records == KINDS
    assert len(KINDS) > 10


def test_every_operation_has_effects() -> None:
    assert set(EFFECTS) == KINDS


def test_every_operation_is_shown_by_a_golden_case() -> None:
    shown = {type(operation) for name in CASES for operation in case(name).plan.operations}
    assert {kind.__name__ for kind in KINDS - shown} == set()
