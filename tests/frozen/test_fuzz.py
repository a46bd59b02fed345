"""The bundle under calls that are each a little damaged: one answer, or silence where the verb has none; no defect."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frozen.calls import Call, CompletedProcess, run_all
from tests.machine import Machine, missing
from tests.unit import fuzz

SILENT = ("DEL", "GC", "CHECK", "STATUS")  # verbs whose success has no answer
PROGRAMS = [
    "podwire",
    "bridge",
    "ptp",
    "host-local",
    "portmap",
    "bandwidth",
    "firewall",
    "tuning",
    "loopback",
    "flannel",
]
VERBS = ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION", "UPDATE", ""]
ROUNDS = 40
EXTRA = ["PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "_MEIPASS2", "\udcff"]


def damaged(chance: random.Random, program: str) -> Call:
    environment = fuzz.environment(chance, chance.choice(VERBS))
    for name in chance.sample(EXTRA, chance.randrange(3)):
        environment[name] = chance.choice(["", "\udcff\udc80", "/nowhere", "C", "x" * 10_000])
    return Call(fuzz.document(chance), environment, program)


def fault(one: Call, ended: CompletedProcess) -> str:
    """Returns what is wrong with how a call ended; empty if nothing is."""
    verb = one.environment.get("CNI_COMMAND", "")
    if b"Traceback" in ended.stderr or b"internal error" in ended.stdout:
        return f"a defect: {ended}"
    if ended.status == 0 and (verb in SILENT or not verb):
        return f"an answer without need: {ended}" if ended.stdout else ""
    try:
        answer = ended.answer
    except (AssertionError, ValueError) as error:
        return f"no answer ({error}): {ended}"
    if ended.status == 0:
        return "" if answer.get("cniVersion") and "code" not in answer else f"no success: {ended}"
    good = ended.status == 1 and isinstance(answer.get("code"), int) and answer["code"] != 999 and answer.get("msg")
    return "" if good else f"no failure: {ended}"


def campaign(bundle: str, seed: int, program: str) -> list[str]:
    """Every fault found, with the call that shows it; in a machine of its own, where whatever is done is done."""
    os.chdir("/run")
    Path("resolv.conf").write_text("nameserver 10.1.2.1\n", encoding="ascii")
    chance = random.Random(seed)
    calls = [damaged(chance, program) for _ in range(ROUNDS)]
    wrong = [(one, fault(one, ended)) for one, ended in zip(calls, run_all(Path(bundle), calls), strict=True)]
    return [f"{one}: {text}" for one, text in wrong if text]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("program", PROGRAMS)
def test_damaged_calls_have_one_answer(bundle: Path, program: str, seed: int) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        assert machine.call(campaign, str(bundle), seed, program) == []


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"]
NO_ANSWER = (">&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full")


@pytest.mark.parametrize("streams", CLOSED)
@pytest.mark.parametrize("verb", ["", "ADD", "DEL", "VERSION"])
def test_whatever_stream_is_closed_there_is_one_answer_or_a_status(bundle: Path, streams: str, verb: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {streams}', bundle / "podwire"],
        input=b"",
        env=fuzz.ENVIRONMENT | {"CNI_COMMAND": verb},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    if streams in NO_ANSWER:
        assert (done.returncode, done.stdout) == (1 if verb else 0, b"")
    elif verb:
        assert CompletedProcess(done.returncode, done.stdout, done.stderr).answer


NAMELESS = """
import ctypes, sys
none, told = (ctypes.c_char_p * 1)(None), (ctypes.c_char_p * 2)(b"CNI_COMMAND=VERSION", None)
ctypes.CDLL(None).execve(sys.argv[1].encode(), none, told)
"""


def test_who_is_called_without_a_name_answers(bundle: Path) -> None:
    """execve(2) with an empty list of arguments; newer kernels put an empty one in."""
    done = subprocess.run([sys.executable, "-c", NAMELESS, bundle / "podwire"], capture_output=True, check=False)
    assert CompletedProcess(done.returncode, done.stdout, done.stderr).answer["cniVersion"] == "1.1.0"
