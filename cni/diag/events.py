"""`podwire events`: the calls of a runtime that failed last, from the file that the plugins leave below /run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cni.diag.asking import NoAnswer
from cni.diag.output import FINDING, FINE, JSON_VERSION, UNANSWERED, Outcome, duration, outcome, table
from cni.protocol import smallfile
from cni.protocol.callevent import NAMES, parse_line
from cni.protocol.control import FOLDER
from cni.protocol.owner import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from cni.protocol.callevent import CallEvent

# Help is not in docstrings: the bundle has none.
HELP = """Show the calls of a container runtime that failed last, newest last.

A failed ADD, DEL, CHECK, GC or STATUS of any plugin of this node leaves a line in a file of bounded size in
/run/podwire, which a reboot empties. Of a STATUS that goes on failing there is one line in ten minutes.

\b
Examples:
  podwire events
  podwire events -n 100 --json
"""
STATUSES = f"""\b
Exit status: {FINE} no call failed; {FINDING} there are failures; 2 usage; {UNANSWERED} the
file cannot be read."""
SHOWN = 20
COUNT_HELP = f"Show the last N (default {SHOWN})."
JSON_HELP = f"Print all members of the events as JSON (version {JSON_VERSION})."
NONE = "no call has failed since the node's start"
HEADER = ("TIME", "AGE", "POD", "VERB", "CODE", "MESSAGE")


@click.command("events", help=HELP, epilog=STATUSES)
@click.option("-n", "count", type=click.IntRange(1), default=SHOWN, metavar="N", help=COUNT_HELP)
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
def events(count: int, as_json: bool) -> Outcome:
    last = read_events(FOLDER)[-count:]
    now = datetime.now(UTC)
    members: dict[str, object] = {"events": [event._asdict() for event in last]}

    def text() -> str:
        return table(HEADER, [row(event, now) for event in last]) if last else NONE

    return outcome(FINDING if last else FINE, as_json, members, text)


def read_events(folder: str) -> list[CallEvent]:
    """Returns all failures, the oldest first; lines that are torn are left out. Raises NoAnswer."""
    lines = []
    for name in NAMES:
        path = f"{folder}/{name}"
        try:
            lines += smallfile.read(path).splitlines()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise NoAnswer(f"{path}: {error.strerror} (only root can read it)") from None
    return [event for event in map(parse_line, lines) if event is not None]


def row(event: CallEvent, now: datetime) -> tuple[str, ...]:
    """Returns the cells of an event; the message is the last, as it is as long as it likes."""
    whose = event.pod or event.container[:SHORT_ID_LENGTH] or "-"
    message = f"{event.message} ({event.details})" if event.details else event.message
    return (event.time[:19] + "Z", age(event.time, now), whose, event.verb, str(event.code), message)


def age(time: str, now: datetime) -> str:
    """Returns the time since then in its largest unit."""
    try:
        return duration((now - datetime.fromisoformat(time)).total_seconds())
    except (ValueError, TypeError):
        return "?"
