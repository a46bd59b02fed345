"""podwire's own source as syntax trees."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

ROOT = Path(__file__).parents[2]
ONE_WORKER = pytest.mark.xdist_group("source")  # so that each file is parsed once
FILES = sorted(file.relative_to(ROOT).as_posix() for top in ("cni", "ipam") for file in (ROOT / top).rglob("*.py"))


class Import(NamedTuple):
    """One module that is imported: where it stands decides when it is loaded."""

    module: str
    line: int
    lazy: bool
    typing: bool
    fallback: bool


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text())


@cache
def nodes(file: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(file)))


def faults(rule: Callable[[str], Collection[object]], files: Iterable[str]) -> dict[str, Collection[object]]:
    """Returns what breaks a rule, by file. One test asks for all: each costs all of pytest's processes time."""
    return {file: broken for file in files if (broken := rule(file))}


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"line {node.lineno}: a relative import"
    base = node.module or ""
    return [f"{base}.{alias.name}" if is_module(f"{base}.{alias.name}") else base for alias in node.names]


def imports(file: str) -> Iterator[Import]:
    yield from _imports(tree(file), lazy=False, typing=False, fallback=False)


def _imports(node: ast.AST, *, lazy: bool, typing: bool, fallback: bool) -> Iterator[Import]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for module in dict.fromkeys(_modules(node)):
            yield Import(module, node.lineno, lazy, typing, fallback)
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        for only_types in node.body:
            yield from _imports(only_types, lazy=lazy, typing=True, fallback=fallback)
        for otherwise in node.orelse:
            yield from _imports(otherwise, lazy=lazy, typing=typing, fallback=fallback)
        return
    lazy = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
    fallback = fallback or isinstance(node, ast.ExceptHandler)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child, lazy=lazy, typing=typing, fallback=fallback)


def functions(file: str) -> Iterator[ast.FunctionDef]:
    for node in nodes(file):
        if isinstance(node, ast.FunctionDef):
            yield node


@cache
def calls(file: str) -> tuple[tuple[str, int], ...]:
    """The dotted name and the line of everything that is called by name."""
    return tuple([(ast.unparse(node.func), node.lineno) for node in nodes(file) if isinstance(node, ast.Call)])
