"""The line that sums up what was skipped, and that no test is skipped for a reason which it does not know."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

from tests.remedies import OTHER, remedy_of, summed_up

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]


def text_of(node: ast.expr) -> str:
    """The words of a reason that stand in the source; empty where it is made elsewhere."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def reasons() -> Iterator[str]:
    for source in [path.read_text() for path in sorted(TESTS.rglob("*.py"))]:
        for node in ast.walk(ast.parse(source)) if ".skip(" in source else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "skip":
                yield text_of(node.args[0])


def test_reasons_are_summed_up_by_remedy_the_most_frequent_first() -> None:
    skipped = [
        "needs root: containerd and runc",
        *["absent: etcd (hack/peers brings it)"] * 3,
        *["KUBECONFIG and PODWIRE_NODE_COMMAND name no cluster to test (see tests/cluster/access.py)"] * 2,
        "not installed: runc (hack/peers brings them)",
    ]
    assert summed_up(skipped) == "skipped: 4 need hack/peers, 2 need a cluster, 1 needs root"


def test_nothing_is_said_where_nothing_was_skipped() -> None:
    assert summed_up([]) == ""


def test_a_reason_that_nobody_foresaw_is_counted_as_well() -> None:
    assert summed_up(["the moon is full"]) == f"skipped: 1 needs {OTHER}"


def test_every_reason_that_a_test_gives_has_a_remedy() -> None:
    found_reasons = [reason for reason in reasons() if reason]
    assert len(found_reasons) > 20
    assert [reason for reason in found_reasons if remedy_of(reason) == OTHER] == []
