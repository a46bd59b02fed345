"""Docstrings are sentences: subject and verb first, or a noun for a class."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from tests.rules.source import ONE_WORKER, ROOT, faults

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def documented(node: ast.AST) -> Iterator[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """Gives what may have a docstring; expressions have nothing of that."""
    if isinstance(node, DOCUMENTED):
        yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield from documented(child)


def clauses(file: str) -> list[str]:
    """Returns the docstrings that begin with a clause, as `line: words`."""
    tree = ast.parse((ROOT / file).read_text())
    docstrings = [(node.body[0].lineno, text) for node in documented(tree) if (text := ast.get_docstring(node))]
    return [f"line {line}: {text.splitlines()[0]}" for line, text in docstrings if re.split(r"\W", text)[0] in CLAUSES]


def test_no_docstring_begins_with_a_clause() -> None:
    assert faults(clauses, FILES) == {}


def test_the_scripts_of_the_tools_are_seen() -> None:
    assert {"hack/bench", "hack/bundle/start.py", "cni/main.py", "ipam/store.py"} <= set(FILES)
