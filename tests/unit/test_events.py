"""Tests the lines that calls leave, and `podwire events`, which shows them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from fcntl import LOCK_EX, flock
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.config.calllog import CallLog, parse_calllog
from cni.kernel import eventlog, hostlock
from cni.protocol.callevent import CallEvent, event_of, line_of, parse_line
from cni.protocol.errors import CniError, TryAgain
from cni.protocol.fields import ConfigErrors, Fields

pytest.importorskip("click", reason="the command line is made with it (pip install click)")

from cni.diag import commandline, events
from cni.diag.events import age
from tests.unit.strategies import PROFILE

if TYPE_CHECKING:
    from pathlib import Path

    from cni.diag.entry import Ended

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "0123456789abcdef",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web",
}
FULL = TryAgain("no IP addresses available", "GC frees them")
EVENT = event_of("podwire", ENVIRONMENT, "net", FULL, time="2026-11-29T12:00:00.250Z", seconds=0.5)


def test_a_line_has_all_that_is_known() -> None:
    assert json.loads(line_of(EVENT)) == {
        "time": "2026-11-29T12:00:00.250Z",
        "seconds": 0.5,
        "level": "error",
        "program": "podwire",
        "verb": "ADD",
        "pod": "shop/web",
        "network": "net",
        "container": "0123456789abcdef",
        "interface": "eth0",
        "code": 11,
        "message": "no IP addresses available",
        "details": "GC frees them",
    }
    assert parse_line(line_of(EVENT).encode()) == EVENT


@pytest.mark.parametrize(
    ("arguments", "pod"),
    [
        ("", ""),
        ("K8S_POD_NAME=web", "web"),
        ("K8S_POD_NAMESPACE=shop", "shop"),
        ("torn;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;=;", "shop/web"),
    ],
)
def test_a_pod_is_named_as_far_as_the_runtime_names_it(arguments: str, pod: str) -> None:
    environment = ENVIRONMENT | {"CNI_ARGS": arguments}
    assert event_of("podwire", environment, "net", FULL, time="", seconds=0).pod == pod


@settings(PROFILE)
@given(st.dictionaries(st.sampled_from(sorted(ENVIRONMENT)), st.text()), st.text(), st.text(), st.text())
def test_whatever_names_and_messages_hold_a_line_stays_one(
    environment: dict[str, str], network: str, message: str, details: str
) -> None:
    event = event_of("podwire", environment, network, CniError(message, details), time="", seconds=0.25)
    line = line_of(event)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 8192
    assert parse_line(line.encode()) is not None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        line_of(EVENT)[:-10].encode(),
        line_of(EVENT).replace("11", '"11"').encode(),
        line_of(EVENT).replace('"net"', "null").encode(),
        line_of(EVENT).replace('"pod"', '"pods"').encode(),
        line_of(EVENT).replace('{"', '{"more":1,"').encode(),
    ],
)
def test_a_line_that_is_torn_or_of_another_kind_is_no_event(line: bytes) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize("case", ["alone", "another call holds the lock", "renamed by another call", "gone"])
def test_a_full_file_is_renamed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    """A second renaming would replace the full file by one that has just been begun."""
    monkeypatch.setattr(hostlock, "RUN", str(tmp_path))
    path, older = tmp_path / "events", tmp_path / "events.1"
    path.write_text("full")
    descriptor, other = (os.open(path, os.O_RDWR) for _ in range(2))
    if case == "another call holds the lock":
        flock(other, LOCK_EX)
    elif case == "renamed by another call":
        path.rename(older)
        path.write_text("new")
    elif case == "gone":
        path.unlink()
    eventlog._rename(descriptor, str(path))
    left = {name.name: name.read_text() for name in tmp_path.iterdir()}
    assert (
        left
        == {
            "alone": {"events.1": "full"},
            "another call holds the lock": {"events": "full"},
            "renamed by another call": {"events.1": "full", "events": "new"},
            "gone": {},
        }[case]
    )
    os.close(descriptor)
    os.close(other)


@pytest.mark.parametrize(
    ("members", "parsed", "messages"),
    [
        ({}, CallLog("", successes=False), []),
        ({"logFile": "/x", "logLevel": "info"}, CallLog("/x", successes=True), []),
        ({"LOGFILE": "/x", "loglevel": "error"}, CallLog("/x", successes=False), []),
        ({"logFile": "x"}, CallLog("", successes=False), ["logFile: 'x' is not an absolute path"]),
        ({"logLevel": "debug"}, CallLog("", successes=False), ["logLevel: 'debug' is neither error nor info"]),
        ({"logLevel": 1}, CallLog("", successes=False), ["logLevel: expected a text"]),
    ],
)
def test_the_keys_are_read(members: dict[str, object], parsed: CallLog, messages: list[str]) -> None:
    errors = ConfigErrors()
    assert parse_calllog(Fields(members, "", errors)) == parsed  # type: ignore[arg-type]  # JSON
    assert errors.messages == messages


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(events, "FOLDER", str(tmp_path))
    return tmp_path


def typed(*arguments: str) -> Ended:
    return commandline.run(["events", *arguments], {}, is_terminal=False)


def write(path: Path, *numbers: int, **members: object) -> None:
    lines = [line_of(EVENT._replace(container=f"container{number}", **members)) for number in numbers]  # type: ignore[arg-type]
    path.write_text("".join([f"{line}\n" for line in lines]), encoding="ascii")


def test_the_last_failures_are_a_table(folder: Path) -> None:
    write(folder / "events", 1)
    with (folder / "events").open("a") as file:
        file.write("torn\n" + line_of(EVENT._replace(pod="", verb="STATUS", details="", message="a\nb\x1b")) + "\n")
    ended = typed()
    assert ended.status == 1
    header, first, second = ended.stdout.splitlines()
    assert header.split() == ["TIME", "AGE", "POD", "VERB", "CODE", "MESSAGE"]
    assert first.split(maxsplit=2)[::2] == [
        "2026-11-29T12:00:00Z",
        "shop/web      ADD     11    no IP addresses available (GC frees them)",
    ]
    assert second.split(maxsplit=2)[2] == r"0123456789ab  STATUS  11    a\nb\x1b"


def test_the_newest_is_the_last_and_as_many_are_shown_as_are_asked_for(folder: Path) -> None:
    write(folder / "events.1", 1, 2)
    write(folder / "events", 3)
    document = json.loads(typed("--json").stdout)
    assert document["version"] == 1
    assert document["events"][0] == EVENT._replace(container="container1")._asdict()
    assert [event["container"] for event in document["events"]] == ["container1", "container2", "container3"]
    last = json.loads(typed("-n", "2", "--json").stdout)["events"]
    assert [event["container"] for event in last] == ["container2", "container3"]
    write(folder / "events", *range(30))
    assert len(typed().stdout.splitlines()) == 21


def test_without_failures_all_is_well(folder: Path) -> None:
    assert typed()[:2] == (0, "no call has failed since the node's start")
    assert typed("--json").status == 0
    (folder / "events").touch()
    assert typed().status == 0


def test_a_file_that_cannot_be_read_is_neither_well_nor_a_finding(folder: Path) -> None:
    os.mkfifo(folder / "events")
    ended = typed()
    assert (ended.status, ended.stdout) == (3, "")
    assert ended.stderr == f"podwire: {folder}/events: not a regular file (only root can read it)"


@pytest.mark.parametrize("arguments", [["-n", "0"], ["-n", "x"], ["more"], ["--yaml"]])
def test_a_wrong_command_line_is_refused(arguments: list[str]) -> None:
    assert typed(*arguments).status == 2


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-29T11:59:59.900Z", "0s"),
        ("2026-11-29T11:59:01.000Z", "59s"),
        ("2026-11-29T11:58:59.000Z", "1m"),
        ("2026-11-29T10:00:00.000Z", "2h"),
        ("2026-11-01T12:00:00.000Z", "28d"),
        ("2026-11-30T12:00:00.000Z", "0s"),  # the clock was set back
        ("2026-11-29T11:00:00", "?"),
        ("then", "?"),
    ],
)
def test_an_age_is_in_its_largest_unit(time: str, expected: str) -> None:
    assert age(time, datetime(2026, 11, 29, 12, tzinfo=UTC)) == expected


def test_an_event_has_the_members_that_the_document_lists() -> None:
    assert CallEvent._fields == tuple(json.loads(line_of(EVENT)))
