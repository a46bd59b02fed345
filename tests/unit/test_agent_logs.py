"""podwired's log: one line an event, bounded whatever is told."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from cni.agent import logbudget, logs
from cni.protocol.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Log:
    """podwired's, with what it writes and a clock that stands still."""

    def __init__(self, written: io.StringIO) -> None:
        self.written, self.now = written, 1_800_000_000.5
        (self.bound,) = [handler for handler in logs.log.handlers if isinstance(handler, logs.BoundedHandler)]

    def say(self, text: str, *args: object, level: int = logging.WARNING) -> list[str]:
        """Returns the lines that this adds."""
        before = len(self.written.getvalue())
        record = logs.log.makeRecord(logs.NAME, level, "", 0, text, args, None)
        record.created, record.msecs = self.now, 500.0
        if logs.log.isEnabledFor(level) and logs.log.filter(record):
            self.bound.handle(record)  # no other: half a surrogate pair that pytest captured would end its processes
        return self.written.getvalue()[before:].splitlines()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    written = io.StringIO()
    before = logs.log.handlers[:], logs.log.level, logs.log.propagate
    monkeypatch.setattr(sys, "stderr", written)
    logs.log.handlers.clear()
    logs.configure()
    yield Log(written)
    logs.log.handlers[:], logs.log.propagate = before[0], before[2]
    logs.log.setLevel(before[1])


def test_a_line_has_keys_and_values(log: Log) -> None:
    assert log.say("peer %s: %s", "10.5.2.0-24", "gone") == [
        'time=2027-01-15T08:00:00.500Z level=warning from=podwired msg="peer 10.5.2.0-24: gone"'
    ]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ('a "word"', 'a \\"word\\"'),
        ("C:\\n", "C:\\\\n"),
        ("two\nlines", "two\\nlines"),
        ("over\rwritten", "over\\rwritten"),
        ("red \x1b[31m", "red \\x1b[31m"),
        ("next\x85line\u2028", "next\\x85line\\u2028"),
        ("\u202eright to left", "\\u202eright to left"),
        ("half \ud800", "half \\ud800"),
        ("größer, 中", "größer, 中"),
        ("100%", "100%"),
    ],
)
def test_whatever_is_said_a_line_is_one_and_shows_it(log: Log, text: str, quoted: str) -> None:
    (line,) = log.say(text)
    assert line.endswith(f' msg="{quoted}"')


def test_an_exception_is_on_the_line_as_well(log: Log) -> None:
    try:
        int("nothing")
    except ValueError:
        logs.log.exception("a defect")
    (line,) = log.written.getvalue().splitlines()
    assert "level=error" in line
    assert 'msg="a defect: Traceback' in line
    assert "ValueError: invalid literal" in line


def test_a_fault_is_written_once_a_minute_and_then_with_a_count(log: Log) -> None:
    assert len(log.say("%s is down", "etcd")) == 1
    for _ in range(5):
        log.now += 10.0
        assert log.say("%s is down", "etcd") == []
    assert len(log.say("%s is down", "another")) == 1
    log.now += 10.0
    (line,) = log.say("%s is down", "etcd")
    assert line.endswith('msg="etcd is down (5 times more)"')
    log.now += 60.0
    (line,) = log.say("%s is down", "etcd")
    assert line.endswith('msg="etcd is down (1 times more)"')
    log.now += 60.0
    log.say("another")  # which begins a minute
    log.now += 60.0
    (line,) = log.say("%s is down", "etcd")
    assert line.endswith('msg="etcd is down"')


def test_counts_are_written_though_nothing_more_is_said(log: Log) -> None:
    for number in range(500):
        log.say("%s is down", "etcd")
        log.say("number %d of %d", number, 500)
    before = len(log.written.getvalue())
    log.bound.write_counts(everything=True)
    counts = [line.partition(' msg="')[2] for line in log.written.getvalue()[before:].splitlines()]
    assert counts == [
        'number 499 of 500 (470 more of these were not written)"',
        'etcd is down (499 times more)"',
    ]
    log.bound.write_counts(everything=True)
    assert len(log.written.getvalue().splitlines()) == 1 + 30 + 2


def test_events_are_never_repetitions(log: Log) -> None:
    for _ in range(3):
        assert len(log.say("wrote %s", "subnet.env", level=logging.INFO)) == 1


def test_a_fault_that_changes_or_comes_again_after_an_event_is_no_repetition(log: Log) -> None:
    texts = ["lease %s is ignored: %s"] * 3
    assert [len(log.say(text, "x", reason)) for text, reason in zip(texts, ("a", "b", "a"), strict=True)] == [1, 1, 1]
    assert log.say("lease %s is ignored: %s", "x", "a") == []
    assert len(log.say("added peer %s", "x", level=logging.INFO)) == 1
    lines = log.say("lease %s is ignored: %s", "x", "a")
    assert [line.partition(' msg="')[2] for line in lines] == [
        'lease x is ignored: a (1 times more)"',
        'lease x is ignored: a"',
    ]


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
@pytest.mark.parametrize("letters", [1, 500, 20_000])
def test_whatever_is_said_a_minute_has_a_budget(log: Log, level: int, letters: int) -> None:
    for number in range(500):
        log.say("lease %d is ignored: %s", number, "x" * letters, level=level)
        log.now += 0.01
    kind = log.written.getvalue()
    assert len(kind.splitlines()) <= logbudget.KIND_LINES
    assert len(kind) <= logbudget.KIND_BYTES
    for number in range(500):
        log.say(f"template {number}: %s", "x" * letters, level=level)
    assert len(log.written.getvalue()) <= logbudget.ALL_BYTES
    log.now += 60.0
    lines = log.say("another: %s", "event", level=level)
    assert 'msg="another: event"' in lines[-1]
    assert any(line.endswith(' more of these were not written)"') for line in lines)


def test_one_flood_leaves_room_for_others(log: Log) -> None:
    for number in range(5000):
        log.say("lease %d is ignored", number)
    assert len(log.say("%s is down", "etcd")) == 1


def test_a_long_text_is_written_with_its_beginning_and_its_end(log: Log) -> None:
    for letter in "x\0":
        (line,) = log.say("begins %s ends", letter * 100_000)
        assert len(line) < 2 * logs.LONGEST + 200
        assert 'msg="begins ' in line
        assert " characters)... " in line
        assert line.endswith(' ends"')


def test_a_repeated_line_may_hold_a_percent_sign(log: Log) -> None:
    log.say("100%s", "% full")
    log.say("100%s", "% full")
    log.now += 60.0
    (line,) = log.say("100%s", "% full")
    assert line.endswith('msg="100% full (1 times more)"')


def test_a_clock_that_is_set_back_silences_nobody(log: Log) -> None:
    log.say("etcd is down")
    log.now -= 86400.0
    assert len(log.say("etcd is down")) == 1
    assert log.say("etcd is down") == []


def test_what_is_remembered_is_bounded(log: Log) -> None:
    for number in range(100):
        for other in range(100):
            log.say("number %d: %d", number, other)
        log.now += 61.0
    budget = log.bound._budget
    assert len(budget.errors) <= logbudget.KIND_LINES
    assert len(budget.kinds) == 1


@pytest.mark.parametrize(("more", "lines"), [(lambda: None, 0), (logs.enable_debug, 1)])
def test_details_are_reported_where_that_is_asked_for(log: Log, more: Callable[[], None], lines: int) -> None:
    more()
    assert len(log.say("a detail", level=logging.DEBUG)) == lines
    assert len(log.say("news", level=logging.INFO)) == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "/etc/x"), "/etc/x: No such file or directory"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (InvalidConfig("Network: missing"), "Network: missing"),
        (KeyError("x"), "a defect of podwired (KeyError); --v=1 logs more"),
    ],
)
def test_an_error_is_reported_in_words(error: Exception, text: str) -> None:
    assert logs.error_text(error) == text
