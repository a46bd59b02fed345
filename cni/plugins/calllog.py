"""The line that a call leaves for people (cni.protocol.callevent): a failed one always, another one if `logLevel` asks
for it.

The file of events has failures alone, and of a STATUS that goes on failing one in ten minutes: a runtime may ask every
second, and would push out of the file why a container was not attached.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from time import gmtime, localtime, strftime, time, tzset

from cni.config.calllog import parse_calllog
from cni.kernel import eventlog
from cni.protocol.callevent import event_of, line_of
from cni.protocol.errors import CniError
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.jsontext import parse_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DAEMON, ERR, INFO = 3 << 3, 3, 6  # facility and severities (RFC 3164)
TAG = "podwire"
REPEATED = "STATUS"
REPEATED_AFTER = 600.0  # seconds


def log(program: str, environment: Mapping[str, str], data: bytes, seconds: float, error: CniError | None) -> None:
    """Writes the line. `data`: the stdin as far as it was read; `error`: None after a success. Raises OSError."""
    try:
        fields = Fields(parse_object(data, "stdin"), "", ConfigErrors())
    except CniError:
        fields = Fields({}, "", ConfigErrors())
    calllog = parse_calllog(fields)
    if error is None and not calllog.successes:
        return
    now = time()
    network = fields.text("name")
    event = event_of(program, environment, network, error, time=_utc(now), seconds=round(seconds, 6))
    line = line_of(event).encode() + b"\n"
    if error is not None and not _is_recorded(line, event.verb == REPEATED, now):
        return
    if calllog.file:
        try:
            eventlog.append(calllog.file, line)
        except OSError:  # the system's log has it then
            calllog = calllog._replace(file="")
    if not calllog.file:
        eventlog.send(_syslog(line, now, INFO if error is None else ERR))


def _is_recorded(line: bytes, may_repeat: bool, now: float) -> bool:
    """Adds the line to the file of events. Returns False for a repeated line, which is left out everywhere."""
    known = line[line.index(b'"level":') :]
    since = f'"time":"{_utc(now - REPEATED_AFTER)}'.encode()

    def is_repeated(last: bytes) -> bool:
        position = last.rfind(known)
        start = last.rfind(b"\n", 0, position) + 1
        return position >= 0 and last[start:].lstrip(b"{") >= since

    try:
        return eventlog.record(line, is_repeated if may_repeat else None)
    except OSError:  # a user who is not root, or a full or read-only /run
        return True


def _utc(moment: float) -> str:
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(moment))}.{int(moment % 1 * 1000):03d}Z"


def _syslog(line: bytes, now: float, severity: int) -> bytes:
    tzset()  # the launcher continues a process of the build machine
    head = f"<{DAEMON | severity}>{strftime('%b %e %H:%M:%S', localtime(now))} {TAG}[{os.getpid()}]: "
    return head.encode() + line.rstrip()
