"""Counts instructions in user space: exact, and the same on every machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from hack.bench_plugins.contenders import enter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.bench_plugins.contenders import Contender

MILLION = 1_000_000


class Counter(NamedTuple):
    """A program that counts those of another, how it writes the number, and whether it can observe Go programs."""

    command: tuple[str, ...]
    pattern: str
    takes_go: bool

    def instructions_of(self, contender: Contender, verb: str, pod: str) -> int:
        """Returns the instructions of one call and its children."""
        enter(contender.host)
        environment = os.environ | contender.call_environment(verb, pod)
        conf = json.dumps(contender.conf)
        called = [*self.command, contender.program]
        done = subprocess.run(called, env=environment, input=conf, capture_output=True, text=True, check=False)
        counts = re.findall(self.pattern, done.stderr, re.MULTILINE)
        if done.returncode or not counts:
            raise SystemExit(f"{contender.name}: {verb} could not be counted: {done.stdout}{done.stderr}")
        return sum(map(int, counts))


PERF = Counter(("perf", "stat", "-x,", "-e", "instructions:u", "--"), r"^(\d+),", takes_go=True)
CALLGRIND = Counter(
    ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--trace-children=yes"),
    r"Collected : (\d+)",
    takes_go=False,
)


def available() -> Counter | None:
    if shutil.which("perf"):
        tried = subprocess.run([*PERF.command, "true"], capture_output=True, text=True, check=False)
        if re.search(PERF.pattern, tried.stderr, re.MULTILINE):
            return PERF
    return CALLGRIND if shutil.which("valgrind") else None


def table(contenders: Sequence[Contender]) -> str:
    """Returns a table of the millions of instructions that calls take; a sentence where nothing counts them."""
    counter = available()
    if counter is None:
        return "Instructions were not counted (perf stat has no counters here, and valgrind is not installed)."
    counted = [contender for contender in contenders if counter.takes_go or contender.name == "podwire"]
    rows = [("millions of instructions", *[contender.name for contender in counted])]
    for contender in counted:
        contender.call("ADD", "pod1")  # creates what is shared, for an ADD that is not the first
    for verb in ("VERSION", "ADD", "DEL"):
        counts = [counter.instructions_of(contender, verb, "pod0") / MILLION for contender in counted]
        rows.append((verb, *[f"{count:.2f}" for count in counts]))
    for contender in counted:
        contender.call("DEL", "pod1")
    rows.insert(1, tuple("-" * len(cell) for cell in rows[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
