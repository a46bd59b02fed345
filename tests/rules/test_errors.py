"""People never read what an exception looks like to the interpreter: no `[Errno 24]`, no `(22, '')`."""

from __future__ import annotations

import ast

from tests.rules.source import FILES, ONE_WORKER, faults, nodes

pytestmark = ONE_WORKER
# Raised with words for people alone.
WORDED = {
    "CniError", "IOFailure", "InvalidConfig", "InvalidEnvironment", "InvalidNetns", "OperationFailed", "CheckFailed",
    "TryAgain", "PluginNotAvailable", "DecodingFailure", "ValueError", "error", "OverflowError", "RecursionError",
    "NoAnswer",
}  # fmt: skip
PLUGIN_FILES = [
    file for file in FILES if not file.startswith(("cni/agent/", "cni/protocol/record"))
]  # a record's are a programmer's


def kinds(handler: ast.ExceptHandler) -> set[str]:
    if handler.type is None:
        return {"BaseException"}
    parts = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return {ast.unparse(part).rpartition(".")[2] for part in parts}


def shows(node: ast.AST, name: str) -> bool:
    """The exception is put into a text as it is."""
    if isinstance(node, ast.FormattedValue):
        return isinstance(node.value, ast.Name) and node.value.id == name
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("str", "repr", "format")
        and any(isinstance(arg, ast.Name) and arg.id == name for arg in node.args)
    )


def shown_exceptions(file: str) -> list[str]:
    return [
        f"line {node.lineno}: {', '.join(sorted(kinds(handler)))}"
        for handler in nodes(file)
        if isinstance(handler, ast.ExceptHandler) and handler.name and not kinds(handler) <= WORDED
        for node in ast.walk(handler)
        if isinstance(node, (ast.FormattedValue, ast.Call)) and shows(node, handler.name)
    ]


def test_no_exception_is_shown_as_it_is() -> None:
    assert faults(shown_exceptions, PLUGIN_FILES) == {}


def shown_reprs(file: str) -> list[int]:
    return [
        node.lineno
        for node in nodes(file)
        if isinstance(node, ast.FormattedValue)
        and node.conversion == ord("r")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("error", "exception", "failure")
    ]


def test_no_exception_is_shown_by_its_repr() -> None:
    assert faults(shown_reprs, FILES) == {}
