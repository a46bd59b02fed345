"""What podwired writes: one line an event, and of the same not more than one a minute."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from cni.agent import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Log:
    """podwired's, with what it writes and a clock that stands still."""

    def __init__(self, written: io.StringIO) -> None:
        self.written, self.now = written, 1_800_000_000.5

    def say(self, text: str, *args: object, level: int = logging.WARNING) -> list[str]:
        """Give the lines that this adds."""
        before = len(self.written.getvalue())
        record = logs.log.makeRecord(logs.NAME, level, "", 0, text, args, None)
        record.created, record.msecs = self.now, 500.0
        if logs.log.isEnabledFor(level):
            logs.log.handle(record)
        return self.written.getvalue()[before:].splitlines()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    written = io.StringIO()
    before = logs.log.handlers[:], logs.log.level, logs.log.propagate
    monkeypatch.setattr(sys, "stderr", written)
    logs.log.handlers.clear()
    logs.set_up()
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


def test_the_same_is_written_once_a_minute_and_then_with_how_often_it_was(log: Log) -> None:
    assert len(log.say("%s is down", "etcd")) == 1
    for _ in range(5):
        log.now += 10.0
        assert log.say("%s is down", "etcd") == []
    assert len(log.say("%s is down", "another")) == 1
    log.now += 10.0
    (line,) = log.say("%s is down", "etcd")
    assert line.endswith('msg="etcd is down (5 times more before)"')
    log.now += 60.0
    (line,) = log.say("%s is down", "etcd")
    assert line.endswith('msg="etcd is down"')


def test_a_repeated_line_may_hold_a_percent_sign(log: Log) -> None:
    log.say("100%s", "% full")
    log.say("100%s", "% full")
    log.now += 60.0
    (line,) = log.say("100%s", "% full")
    assert line.endswith('msg="100% full (1 times more before)"')


def test_a_clock_that_is_set_back_silences_nobody(log: Log) -> None:
    log.say("etcd is down")
    log.now -= 86400.0
    assert len(log.say("etcd is down")) == 1
    assert log.say("etcd is down") == []


def test_what_is_remembered_is_bounded(log: Log) -> None:
    (bound,) = [one for one in logs.log.handlers[0].filters if isinstance(one, logs._Bound)]
    for number in range(3 * logs.REMEMBERED):
        assert len(log.say("number %d", number)) == 1
    assert len(bound._seen) <= logs.REMEMBERED


@pytest.mark.parametrize(("more", "lines"), [(lambda: None, 0), (logs.tell_more, 1)])
def test_details_are_told_where_that_is_asked_for(log: Log, more: Callable[[], None], lines: int) -> None:
    more()
    assert len(log.say("a detail", level=logging.DEBUG)) == lines
    assert len(log.say("news", level=logging.INFO)) == 1
