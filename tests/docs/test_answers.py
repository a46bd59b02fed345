"""The answers of `podwire policy` in the agent's document are those of the built podwired about the policies there."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest

from tests.docs.conftest import new_node
from tests.docs.documents import ROOT, Block, blocks
from tests.machine import Machine, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENT = "cni/agent/README.md"
SHOWN = [block for block in blocks(DOCUMENT) if block.kind == "shows"]
POLICIES = [block for block in blocks(DOCUMENT) if block.kind == "file"]
FLAGS = ("--network-policy", "--policy-files=/run/policies")
UNDERLAY = """link add eth0 type veth peer name other
link set other up
address add 172.31.0.11/24 dev eth0
link set eth0 up
route add default via 172.31.0.1
"""


@pytest.fixture(scope="module")
def agent(bundle: Path) -> Iterator[tuple[Machine, Path]]:
    """Runs podwired with the policies of the document on node1 of conf/nodes.json."""
    with new_node() as machine:
        machine.run("ip", "-batch", "-", stdin=UNDERLAY)
        for file in POLICIES:
            machine.run("install", "-D", "/dev/stdin", file.mark, stdin=file.text)
        machine.run("install", "-D", "/dev/stdin", "/run/nodes.json", stdin=(ROOT / "conf/nodes.json").read_text())
        command = shlex.join([str(bundle / "podwired"), "--nodes-file=/run/nodes.json", *FLAGS])
        machine.start("sh", "-c", f"exec {command} >/run/log 2>&1")
        ready = ("grep", "-q", "ready: pods can be attached", "/run/log")
        until(lambda: not machine.run(*ready, check=False).returncode, "pods can be attached")
        yield machine, bundle


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.text.splitlines()[0])
def test_the_answer_is_the_one_that_is_shown(agent: tuple[Machine, Path], block: Block) -> None:
    machine, bundle = agent
    command, _, expected = block.text.partition("\n")
    prompt, program, *arguments = shlex.split(command)
    assert (prompt, program) == ("$", "podwire")
    assert machine.run(str(bundle / "podwire"), *arguments, check=False).stdout == expected
