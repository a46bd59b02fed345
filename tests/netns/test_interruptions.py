"""An ADD that is interrupted, killed, or has nobody to answer to: undone, or whole, or DEL's to clean up."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.machine import MachineError
from tests.netns.faults import Saboteur, count, crash, wrap_effects
from tests.netns.runtime import PROGRAM, RICH, RICHEST, ROUTED, Answer, Attachment, Closed, Json, attachment, serve
from tests.netns.state import difference, held_by, whole

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Node

SIGNALS = 8
LONGEST = 0.2  # s: an ADD from the start of its process to its end


def execute(who: Attachment, config: Json, shell: str = 'exec "$@"', delay: float = -1) -> Answer:
    """Runs podwire as a program; sends it SIGTERM after a delay in seconds. To be called in a machine."""
    with subprocess.Popen(
        ["sh", "-c", shell, "sh", sys.executable, "-I", "-S", PROGRAM],
        env={"PATH": os.environ["PATH"], **who.environment("ADD")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        process.stdin = None
        if delay >= 0:
            time.sleep(delay)
            process.terminate()
        output, heard = process.communicate(timeout=60)
    return Answer(process.returncode, output.decode(), heard.decode())


def test_an_answer_that_nobody_reads_undoes_the_add(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    before = whole(machine)
    assert node.call("ADD", RICH, who, stdout=Closed()).status == 1
    assert difference(before, whole(machine)) == []


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "2>&-"])
def test_a_closed_stdout_undoes_the_add_and_a_closed_stderr_does_not(machine: Machine, node: Node, closed: str) -> None:
    who = attachment(machine.pod())
    before = whole(machine)
    answer = machine.call(execute, who, RICH, f'exec "$@" {closed}')
    if closed == "2>&-":
        assert node.call("CHECK", {**RICH, "prevResult": answer.content}, who).status == 0
    else:
        assert answer.status == 1
        assert difference(before, whole(machine)) == []


def test_a_signal_at_any_moment_leaves_the_machine_as_before_or_the_pod_attached(machine: Machine, node: Node) -> None:
    node.add(RICH, attachment(machine.pod("other")))
    who = attachment(machine.pod("victim"))
    before = whole(machine)
    moments = random.Random(1)
    endings = set()
    for _ in range(SIGNALS):
        answer = machine.call(execute, who, RICH, 'exec "$@"', moments.uniform(0, LONGEST))
        result = json.loads(answer.stdout or "{}")
        if "ips" in result:
            endings.add("attached")
            assert node.call("CHECK", {**RICH, "prevResult": result}, who).succeeded()
            node.call("DEL", {**RICH, "prevResult": result}, who).succeeded()
        else:
            endings.add("undone")
            assert answer.status != 0
            assert result.get("code", 11) == 11, answer
        assert difference(before, whole(machine)) == [], answer
    assert endings  # which of them is the moment's affair


def _killed_at(number: int, config: Json, who: Attachment) -> None:
    saboteur = Saboteur(crash)
    wrap_effects(saboteur.wrap)
    saboteur.aim_at(number)
    serve(who.environment("ADD"), config)


@pytest.mark.parametrize("config", [RICHEST, ROUTED], ids=["bridged", "routed"])
def test_a_delete_releases_what_a_killed_add_left(machine: Machine, node: Node, config: Json) -> None:
    """Killed at any effect, as by SIGKILL or a loss of power to the process: nobody undoes it but DEL."""
    others = {key: value for key, value in config.items() if key != "runtimeConfig"}
    node.add(others, attachment(machine.pod("other")))
    pod = machine.pod("victim")
    node.add(config, attachment(pod))  # what containers share is there from now on
    node.delete(config, attachment(pod))
    names = machine.call(count, wrap_effects, config, attachment(pod))
    node.delete(config, attachment(pod))
    before = whole(machine)
    changing = [number for number, name in enumerate(names) if not name.endswith(("read", "ask", "dump", "stat"))]
    for number in changing:
        who = Attachment(f"killed{number}", pod.path)
        with pytest.raises(MachineError, match="without an answer"):
            machine.call(_killed_at, number, config, who)
        node.delete(config, who)
    # All together: a host port that one of them left would have refused the ADD after it.
    owners = {f"killed{number}/eth0": names[number] for number in changing}
    assert held_by(machine, *owners) == [], owners
    assert difference(before, whole(machine)) == []
    node.add(config, attachment(pod))
