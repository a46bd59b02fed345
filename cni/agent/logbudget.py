"""Decides which log records are written: a minute has room for so many lines and bytes, whatever they say.

An error that is reported again and again is written once a minute. A change is never held back as a repetition:
neither an event (level info), nor an error that differs from the last of its subject, nor one that comes again after
an event of its logger. Above the budget of its kind (one format string) or of all kinds a record is counted, and every
count is written.
"""

from __future__ import annotations

import logging
from copy import copy

MINUTE = 60.0
KIND_LINES, KIND_BYTES = 30, 8192  # in one minute
ALL_LINES, ALL_BYTES = 300, 65536

Subject = tuple[str, str, object]


class _LoggedError:
    """The last record of a subject that was written, and the number of equal ones since."""

    def __init__(self, record: logging.LogRecord, text: str, events: int) -> None:
        self.record, self.text, self.events = record, text, events
        self.held_back = 0


class _Kind:
    """The use of one minute's budget, and the records above it: the last of them and their number."""

    def __init__(self) -> None:
        self.lines = self.bytes = self.held_back = 0
        self.last: logging.LogRecord | None = None


class LogBudget:
    """The state of one log. Time is that of the records, so that it can be tested without waiting."""

    def __init__(self) -> None:
        self.began = float("-inf")
        self.lines = self.bytes = 0
        self.kinds: dict[tuple[str, int, str], _Kind] = {}
        self.errors: dict[Subject, _LoggedError] = {}
        self.events: dict[str, int] = {}  # by logger

    @property
    def holds_back(self) -> bool:
        """True if a count waits to be written."""
        return any(kind.held_back for kind in self.kinds.values()) or any(
            entry.held_back for entry in self.errors.values()
        )

    def admit(self, record: logging.LogRecord, size: int) -> list[logging.LogRecord]:
        """Returns the records to write now: counts of the minute that has passed, then this one if there is room."""
        records = self.drain(record.created) if not 0 <= record.created - self.began < MINUTE else []
        if record.levelno < logging.WARNING:
            self.events[record.name] = self.events.get(record.name, 0) + 1
            return [*records, *self._within_budget(record, size)]
        text, subject = record.getMessage(), _subject_of(record)
        entry = self.errors.get(subject)
        if entry is not None and entry.text == text and self._is_repetition(entry, record):
            entry.held_back += 1
            return records
        admitted = self._within_budget(record, size)
        if admitted:
            self.errors[subject] = _LoggedError(record, text, self.events.get(record.name, 0))
            if entry is not None and entry.held_back:
                records.append(_counted(entry, record.created))
        return [*records, *admitted]

    def _is_repetition(self, entry: _LoggedError, record: logging.LogRecord) -> bool:
        """A clock may be set back."""
        recent = 0 <= record.created - entry.record.created < MINUTE
        return recent and entry.events == self.events.get(record.name, 0)

    def _within_budget(self, record: logging.LogRecord, size: int) -> list[logging.LogRecord]:
        kind = self.kinds.setdefault((record.name, record.levelno, str(record.msg)), _Kind())
        if (
            kind.lines >= KIND_LINES
            or (kind.lines and kind.bytes + size > KIND_BYTES)
            or self.lines >= ALL_LINES
            or self.bytes + size > ALL_BYTES
        ):
            kind.held_back, kind.last = kind.held_back + 1, record
            return []
        kind.lines, kind.bytes = kind.lines + 1, kind.bytes + size
        self.lines, self.bytes = self.lines + 1, self.bytes + size
        return [record]

    def drain(self, now: float, *, everything: bool = False) -> list[logging.LogRecord]:
        """Begins a new minute. Returns what was held back, as counts; of repetitions those whose minute has passed."""
        records = [
            _with_count(kind.last, f"{kind.held_back} more of these were not written", now)
            for kind in self.kinds.values()
            if kind.last is not None
        ]
        for subject, entry in [*self.errors.items()]:
            if not everything and 0 <= now - entry.record.created < MINUTE:
                continue
            del self.errors[subject]
            if entry.held_back:
                records.append(_counted(entry, now))
                self.errors[subject] = _LoggedError(records[-1], entry.text, entry.events)
        self.kinds.clear()
        self.began, self.lines, self.bytes = now, 0, 0
        return records


def _subject_of(record: logging.LogRecord) -> Subject:
    """The subject of "lease %s is ignored: %s" is that lease; one value alone is the whole text."""
    first = record.args[0] if isinstance(record.args, tuple) and len(record.args) > 1 else record.getMessage()
    return record.name, str(record.msg), first


def _counted(entry: _LoggedError, now: float) -> logging.LogRecord:
    return _with_count(entry.record, f"{entry.held_back} times more", now, entry.text)


def _with_count(record: logging.LogRecord, count: str, now: float, text: str = "") -> logging.LogRecord:
    """The record again, with a count at its end and without a traceback."""
    counted = copy(record)
    counted.msg, counted.args, counted.exc_info = "%s (%s)", (text or record.getMessage(), count), None
    counted.created, counted.msecs = now, now % 1 * 1000
    return counted
