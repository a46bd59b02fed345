"""Docstrings are sentences: subject and verb first, or a noun for a class."""

from __future__ import annotations

import ast
import re

import pytest

from tests.rules.source import ONE_WORKER, ROOT, tree

pytestmark = ONE_WORKER
FOLDERS = ("cni", "ipam", "hack", "tests")
# A docstring that begins with one of them says what a thing is about, and not what it is or does.
CLAUSES = {
    "What", "Whether", "Who", "Of", "By", "Where", "From", "That", "Those", "How", "Which", "None", "If",
}  # fmt: skip
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def is_python(file: str) -> bool:
    """True for modules, and for scripts without a suffix that Python runs."""
    path = ROOT / file
    if path.suffix:
        return path.suffix == ".py"
    with path.open("rb") as content:
        return b"python" in content.readline(100)


FILES = [
    name
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*"))
    for name in [file.relative_to(ROOT).as_posix()]
    if file.is_file() and is_python(name)
]


def faults(file: str) -> list[str]:
    """Returns the docstrings that begin with a clause, as `line: words`."""
    docstrings = [
        (node.body[0].lineno, text)
        for node in ast.walk(tree(file))
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))
    ]
    return [f"line {line}: {text.splitlines()[0]}" for line, text in docstrings if re.split(r"\W", text)[0] in CLAUSES]


@pytest.mark.parametrize("file", FILES)
def test_no_docstring_begins_with_a_clause(file: str) -> None:
    assert faults(file) == []


def test_the_scripts_of_the_tools_are_seen() -> None:
    assert {"hack/bench", "hack/bundle/start.py", "cni/main.py", "ipam/store.py"} <= set(FILES)
