"""Calls that are each a little damaged: there is one answer, and never an internal error."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import example, given, settings

from cni.main import run
from tests.calls import NETWORK, defect
from tests.machine import Machine, missing
from tests.unit.calls import Sink, Source
from tests.unit.strategies import ENVIRONMENT, VALUES, WHOLE, documents, environments, places_in

PURE = ["ADD", "CHECK", "STATUS", "VERSION", "UPDATE"]  # verbs that fail before they change the machine
VERBS = ["ADD", "CHECK", "DEL", "GC", "STATUS"]
SHARING = ["portmap", "firewall"]  # what needs no namespace is attached now and then, and leaves its rules


def fault(program: str, environment: dict[str, str], document: bytes) -> str:
    """Calls the program and returns the reason why its answer breaks the protocol, empty if it does not."""
    stdout, stderr = Sink(), Sink()
    status = run([program], environment, Source(document), stdout, stderr)
    if len(stdout.writes) > 1:
        return f"{len(stdout.writes)} writes"
    return defect(environment["CNI_COMMAND"], status, b"".join(stdout.writes), stderr.text.encode())


@pytest.mark.no_cover
def test_any_member_of_any_value_has_one_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key's members in turn take each of the values: no chance is left."""
    monkeypatch.setattr("ipam.config.DATA_DIR", str(tmp_path / "leases"))
    environment = ENVIRONMENT | {"CNI_COMMAND": "ADD"}
    faults = []
    for key, whole in WHOLE.items():
        document = NETWORK | {key: deepcopy(whole)}
        for container, member in [(document, key), *places_in(document[key])]:
            original = container[member]
            for container[member] in VALUES:
                data = json.dumps(document).encode()
                if reason := fault("podwire", environment, data):
                    faults.append(f"{reason}: {data!r}")
            container[member] = original
    assert faults == []


@pytest.mark.no_cover
@pytest.mark.parametrize("verb", PURE)
def test_damaged_calls_that_fail_before_they_touch_the_machine_have_one_answer(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ipam.config.DATA_DIR", str(tmp_path / "leases"))

    @settings(max_examples=80)
    @given(environments([verb]), documents())
    @example(ENVIRONMENT | {"CNI_COMMAND": verb}, json.dumps(WHOLE).encode())
    def check(environment: dict[str, str], document: bytes) -> None:
        assert fault("podwire", environment, document) == ""

    check()
    assert list(tmp_path.iterdir()) == []


def in_machine(program: str) -> None:
    """Checks calls in a machine of its own, where they may do whatever they ask for."""
    os.chdir("/run")
    Path("resolv.conf").write_text("nameserver 10.1.2.1\n", encoding="ascii")

    @settings(max_examples=80)
    @given(environments(VERBS), documents())
    def check(environment: dict[str, str], document: bytes) -> None:
        assert fault(program, environment, document) == ""

    check()


@pytest.mark.parametrize("program", ["podwire", "ptp", "host-local", "bandwidth", "loopback", "tuning", *SHARING])
def test_damaged_calls_of_every_verb_have_one_answer(program: str) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        before = machine.snapshot(())
        machine.call(in_machine, program)
        assert (machine.snapshot(()) == before) is (program not in SHARING)
