"""Compares the plan and the result of each case with its golden file, word for word."""

from __future__ import annotations

import json

import pytest

from tests.golden.cases import CASES, FOLDER, case


@pytest.mark.parametrize("name", CASES)
def test_the_plan_and_the_answer_are_those_that_were_reviewed(name: str, updating: bool) -> None:
    golden = case(name)
    result = json.dumps(golden.result, indent=2) + "\n"
    if updating:
        (FOLDER / name / "plan.txt").write_text(golden.text)
        (FOLDER / name / "result.json").write_text(result)
    assert golden.text == (FOLDER / name / "plan.txt").read_text()
    assert result == (FOLDER / name / "result.json").read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_case_is_whole(name: str) -> None:
    assert {file.name for file in (FOLDER / name).iterdir()} == {"input.json", "plan.txt", "result.json"}
