"""The bundle under calls that are each a little damaged: one answer, or silence where the verb has none; no defect."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.calls import defect
from tests.frozen.calls import PROGRAMS, Call, CompletedProcess, as_root, run_all
from tests.machine import Machine, missing
from tests.unit.strategies import ENVIRONMENT, documents, environments

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

VERBS = ["ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION", "UPDATE", ""]
EXTRA = ["PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "_MEIPASS2", "\udcff"]
VALUES = ["", "\udcff\udc80", "/nowhere", "C", "x" * 10_000]


@st.composite
def damaged_calls(draw: DrawFn, program: str) -> Call:
    environment = draw(environments(VERBS))
    extra = draw(st.dictionaries(st.sampled_from(EXTRA), st.sampled_from(VALUES), max_size=2))
    return Call(draw(documents()), environment | extra, program)


def in_machine(bundle: str, program: str) -> None:
    """Checks calls, several at a time, in a machine of its own, where they may do whatever they ask for."""
    os.chdir("/run")
    Path("resolv.conf").write_text("nameserver 10.1.2.1\n", encoding="ascii")

    @settings(max_examples=5)
    @given(st.lists(damaged_calls(program), min_size=8, max_size=8))
    def check(calls: list[Call]) -> None:
        for call, ended in zip(calls, run_all(Path(bundle), calls), strict=True):
            assert defect(call.environment["CNI_COMMAND"], *ended) == "", (call, ended)

    check()


@pytest.mark.parametrize("program", PROGRAMS)
def test_damaged_calls_have_one_answer(bundle: Path, program: str) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        machine.call(in_machine, str(bundle), program)


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"]
NO_ANSWER = (">&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full")


@pytest.mark.parametrize("streams", CLOSED)
@pytest.mark.parametrize("verb", ["", "ADD", "DEL", "VERSION"])
def test_whatever_stream_is_closed_there_is_one_answer_or_a_status(bundle: Path, streams: str, verb: str) -> None:
    done = as_root(with_streams, bundle, streams, verb)
    assert b"Traceback" not in done.stderr
    if streams in NO_ANSWER:
        assert (done.returncode, done.stdout) == (1 if verb else 0, b"")
    elif verb:
        assert CompletedProcess(done.returncode, done.stdout, done.stderr).answer


def with_streams(bundle: Path, streams: str, verb: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {streams}', bundle / "podwire"],
        input=b"",
        env=ENVIRONMENT | {"CNI_COMMAND": verb},
        capture_output=True,
        check=False,
        timeout=60,
    )


NAMELESS = """
import ctypes, sys
none, variables = (ctypes.c_char_p * 1)(None), (ctypes.c_char_p * 2)(b"CNI_COMMAND=VERSION", None)
ctypes.CDLL(None).execve(sys.argv[1].encode(), none, variables)
"""


def test_who_is_called_without_a_name_answers(bundle: Path) -> None:
    """execve(2) with an empty list of arguments; newer kernels put an empty one in."""
    done = subprocess.run([sys.executable, "-c", NAMELESS, bundle / "podwire"], capture_output=True, check=False)
    assert CompletedProcess(done.returncode, done.stdout, done.stderr).answer["cniVersion"] == "1.1.0"
