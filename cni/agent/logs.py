"""What the agent says to people: one line an event, key=value, and bounded however often the same goes wrong."""

from __future__ import annotations

import logging
import time

NAME = "podwired"
REPEAT_SECONDS = 60.0  # the same line is written once in this time
REMEMBERED = 1000  # different lines

# Keys of a store may hold anything: it is shown as in Python, so that a line stays one.
QUOTED = {number: repr(chr(number))[1:-1] for number in (*range(0x20), *range(0x7F, 0xA0), 0x5C, 0x2028, 0x2029)}
QUOTED[ord('"')] = '\\"'

log = logging.getLogger(NAME)


class _Lines(logging.Formatter):
    """`time=... level=... from=... msg="..."`, as log collectors read it."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text = f"{text}: {self.formatException(record.exc_info)}"
        quoted = text.translate(QUOTED)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return (
            f'time={moment}.{int(record.msecs):03d}Z level={record.levelname.lower()} from={record.name} msg="{quoted}"'
        )


class _Bound(logging.Filter):
    """Holds back a line that was written a moment ago; its next occurrence tells how many were."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        since, held_back = self._seen.get(text, (-REPEAT_SECONDS, 0))
        if 0 <= record.created - since < REPEAT_SECONDS:  # clocks are set back
            self._seen[text] = since, held_back + 1
            return False
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        self._seen[text] = record.created, 0
        if held_back:
            record.msg, record.args = f"{text} ({held_back} times more before)", None
        return True


def set_up() -> None:
    """To standard error, for all of the agent."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    handler.addFilter(_Bound())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def tell_more() -> None:
    """What only somebody wants to know who searches for a fault."""
    log.setLevel(logging.DEBUG)
