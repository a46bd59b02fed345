"""Thousands of calls, each a little damaged: there is one answer, and never an internal error."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from tests.machine import Machine, missing
from tests.unit.fuzz import campaign

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(4))
def test_damaged_calls_that_fail_before_they_touch_the_machine_have_one_answer(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ipam.config.DATA_DIR", str(tmp_path / "leases"))
    verbs = ["ADD", "CHECK", "STATUS", "VERSION", "UPDATE"]
    assert campaign(random.Random(seed), "podwire", verbs, 1000) == []
    assert list(tmp_path.iterdir()) == []


def inside(program: str) -> list[str]:
    """Called in a machine of its own, so that whatever is done is done there."""
    os.chdir("/run")
    with open("resolv.conf", "w", encoding="ascii") as file:
        file.write("nameserver 10.1.2.1\n")
    return campaign(random.Random(5), program, ["ADD", "CHECK", "DEL", "GC", "STATUS"], 600)


SHARING = ["portmap", "firewall"]  # what needs no namespace is attached now and then, and leaves its rules


@pytest.mark.parametrize("program", ["podwire", "ptp", "host-local", "bandwidth", "loopback", "tuning", *SHARING])
def test_damaged_calls_of_every_verb_have_one_answer(program: str) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        before = machine.snapshot(())
        assert machine.call(inside, program) == []
        assert (machine.snapshot(()) == before) is (program not in SHARING)
