"""The output of commands: exit statuses, JSON of a documented shape, tables."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FINE, FINDING, UNANSWERED = 0, 1, 3  # 2: usage (cni.diag.entry)
JSON_VERSION = 1  # of all shapes; members may be added without another one
UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
END = "\x1b[0m"  # of a style
WIDE, HIGH = 100_000, 24  # where there is no terminal nothing is wrapped: programs read lines


class Outcome(Record):
    """The end of a command: its exit status, and what it prints."""

    status: int
    text: str


def json_text(**members: object) -> str:
    """Returns an object with the version of its shape."""
    return json.dumps({"version": JSON_VERSION, **members}, indent=2)


def outcome(status: int, as_json: bool, members: dict[str, object], text: Callable[[], str]) -> Outcome:
    """Returns the end of a command in the form that was asked for."""
    return Outcome(status, json_text(**members) if as_json else text())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table as text with escape sequences for a terminal, a line for each row, however long: names and
    addresses that are broken in two cannot be copied. Cells are plain text; of columns without any content only the
    heading is shown.
    """
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        grid.add_column(column, no_wrap=True)
    for row in rows:
        grid.add_row(*[Text(printable(cell)) for cell in row])
    return rendered(grid, WIDE)


def rendered(content: object, width: int = 0) -> str:
    """Returns rich's rendering of anything; without a width as wide as the terminal."""
    from rich.console import Console

    if not width:
        width = shutil.get_terminal_size((WIDE, HIGH)).columns if os.isatty(1) else WIDE
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, color_system="standard", width=width, highlight=False)
    console.print(content)
    return "\n".join([_trimmed(line) for line in written.getvalue().splitlines()])


def _trimmed(line: str) -> str:
    """Returns a line without blanks at its end, also where a style ends behind them."""
    text = line.rstrip()
    return f"{text.removesuffix(END).rstrip()}{END}" if text.endswith(END) else text


def duration(seconds: float) -> str:
    """Returns a time in the largest unit of which it has one."""
    size, unit = next((size, unit) for size, unit in UNITS if seconds >= size or size == 1)
    return f"{int(max(0.0, seconds)) // size}{unit}"


def age(since: float) -> str:
    """Returns how long ago a time (time.time) was; `-` where it is not known."""
    return duration(time.time() - since) if since else "-"


def print_now(text: str) -> None:
    """Writes to stdout at once, for a command that has no end. Raises OSError."""
    import click

    shown = text if os.isatty(1) and not os.environ.get("NO_COLOR") else click.unstyle(text)
    os.write(1, f"{shown}\n".encode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Returns the text with control characters escaped: names come from pods' authors."""
    return "".join([letter if letter.isprintable() else repr(letter)[1:-1] for letter in text])
