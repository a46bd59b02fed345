"""Docstrings are sentences: subject and verb first, or a noun for a class."""

from __future__ import annotations

import ast
import re

import pytest

from tests.rules.source import ROOT, tree

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
# Files that are still to be rewritten: the list only shrinks.
PENDING = [
    "cni/agent/cli/flags.py",
    "cni/agent/cli/options.py",
    "cni/agent/controllers/drift.py",
    "cni/agent/dataplane/state.py",
    "cni/agent/logs.py",
    "cni/agent/main.py",
    "cni/agent/model/claims.py",
    "cni/agent/model/cluster_state.py",
    "cni/agent/model/lease.py",
    "cni/agent/model/network.py",
    "cni/agent/model/peers.py",
    "cni/agent/node/conflist.py",
    "cni/agent/node/subnetenv.py",
    "cni/agent/runtime/health.py",
    "cni/agent/runtime/inotify.py",
    "cni/agent/runtime/instance.py",
    "cni/agent/uplink/pinned.py",
    "cni/agent/uplink/select.py",
    "tests/netns/state.py",
    "tests/unit/test_agent_conflist.py",
    "tests/unit/test_agent_health.py",
    "tests/unit/test_agent_known.py",
    "tests/unit/test_agent_options.py",
    "tests/unit/test_agent_peers.py",
    "tests/unit/test_agent_plane.py",
    "tests/unit/test_agent_watch.py",
    "tests/unit/test_agent_wire.py",
]  # end


def faults(file: str) -> list[str]:
    """Returns the docstrings that begin with a clause, as `line: words`."""
    docstrings = [
        (node.body[0].lineno, text)
        for node in ast.walk(tree(file))
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))
    ]
    return [f"line {line}: {text.splitlines()[0]}" for line, text in docstrings if re.split(r"\W", text)[0] in CLAUSES]


@pytest.mark.parametrize("file", [file for file in FILES if file not in PENDING])
def test_no_docstring_begins_with_a_clause(file: str) -> None:
    assert faults(file) == []


def test_the_scripts_of_the_tools_are_seen() -> None:
    assert {"hack/bench", "hack/bundle/start.py", "cni/main.py", "ipam/store.py"} <= set(FILES)
