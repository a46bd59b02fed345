"""The agent's log: logfmt, one line per event, bounded in length and number."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from os import strerror
from threading import Timer

from cni.agent.logbudget import MINUTE, LogBudget
from cni.agent.secrets import without_credentials
from cni.kernel.netlink import Interrupted, NetlinkError
from cni.protocol.errors import CniError
from cni.protocol.record import Record

NAME = "podwired"
LONGEST = 2000  # characters of a text; of a longer one the beginning and the end are written
RECENT, RECENT_LONGEST = 50, 500  # warnings and errors that are kept, and characters of each

log = logging.getLogger(NAME)


class LogfmtFormatter(logging.Formatter):
    """`time=... level=... from=... msg="..."`, as log collectors read it."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}: {self.formatException(record.exc_info)}"
        text = without_credentials(text)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return (
            f"time={moment}.{int(record.msecs):03d}Z level={record.levelname.lower()} from={record.name}"
            f' msg="{_shortened(_quoted(_shortened(text, LONGEST)), 2 * LONGEST)}"'
        )


def _shortened(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ...({len(text) - longest} characters)... {text[-half:]}"


def _quoted(text: str) -> str:
    """Values of a store may hold anything: what cannot be seen is shown as in Python, so that a line stays one."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join([_quoted_letter(letter) for letter in text])


def _quoted_letter(letter: str) -> str:
    if letter == '"':
        return '\\"'
    return letter if letter.isprintable() and letter != "\\" else repr(letter)[1:-1]


class LoggedEvent(Record):
    """A line of the log; `time` in seconds since the epoch."""

    time: float
    level: str
    message: str


class BoundedHandler(logging.StreamHandler):  # type: ignore[type-arg]  # the stream is standard error
    """Writes what the budget admits; what it held back is written as counts a minute later, even if no record comes.

    `recent` has the last warnings and errors that were written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.recent: deque[LoggedEvent] = deque(maxlen=RECENT)
        self.setFormatter(LogfmtFormatter())
        self._budget = LogBudget()
        self._timer: Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        size = len(self.format(record).encode(errors="replace")) + len(self.terminator)
        for admitted in self._budget.admit(record, size):
            self._write(admitted)
        self._arrange()

    def _write(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if record.levelno >= logging.WARNING:
            text = _shortened(without_credentials(record.getMessage()), RECENT_LONGEST)
            self.recent.append(LoggedEvent(record.created, record.levelname.lower(), text))

    def write_counts(self, *, everything: bool = False) -> None:
        """Takes the handler's lock, as the timer has a thread of its own."""
        self.acquire()
        try:
            self._timer = None
            for admitted in self._budget.drain(time.time(), everything=everything):
                self._write(admitted)
            self._arrange()
        finally:
            self.release()

    def _arrange(self) -> None:
        if self._timer is None and self._budget.holds_back:
            self._timer = Timer(MINUTE, self.write_counts)
            self._timer.daemon = True
            self._timer.start()


def configure() -> None:
    """To standard error, for all of the agent."""
    log.addHandler(BoundedHandler())
    log.setLevel(logging.INFO)
    log.propagate = False
    quiet_libraries()


def quiet_libraries() -> None:
    """They would write to standard error by themselves what a server makes them complain of, without bounds."""
    library = logging.getLogger("urllib3")
    library.addHandler(logging.NullHandler())
    library.propagate = False


def finish() -> None:
    """Writes the counts that are left; the agent ends."""
    for handler in log.handlers:
        if isinstance(handler, BoundedHandler):
            handler.write_counts(everything=True)


def recent_events() -> list[LoggedEvent]:
    """Returns the last warnings and errors of the log, the oldest first."""
    handlers = [handler for handler in log.handlers if isinstance(handler, BoundedHandler)]
    return [event for handler in handlers for event in handler.recent.copy()]


def enable_debug() -> None:
    """Enables debug logging."""
    log.setLevel(logging.DEBUG)


def error_text(error: BaseException) -> str:
    """Returns an error's text for the log, not Python's own; for a defect its place in the code (--v=1 logs more)."""
    if isinstance(error, NetlinkError):
        return f"the kernel refused a step: {error.text or strerror(error.errno)}"
    if isinstance(error, CniError):
        return error.message
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    if isinstance(error, Interrupted):
        return str(error)
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place is not None else ""
    return f"a defect of podwired ({type(error).__name__}{where}); --v=1 logs more"
