"""The common parts of podwired's benchmarks: machines for each agent, figures by name, and the table of ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

ROOT = Path(__file__).resolve().parents[1]

Figures = dict[str, list[float]]


class Row(NamedTuple):
    """A row of the table. `goal` is a ratio, or with `absolute` podwired's own figure."""

    part: str
    figure: str
    label: str
    digits: int
    goal: float | None = None
    absolute: bool = False


def measure(module: str, agent: Path, *arguments: str) -> Figures:
    """Returns what a module prints that is run in a machine of its own. Raises SystemExit if it fails."""
    flags = "-mnp" if os.geteuid() == 0 else "-Urmnp"
    machine = ["unshare", flags, "--fork", "--kill-child", "--mount-proc", "--"]
    node = [sys.executable, "-B", "-m", module, *arguments]
    process = subprocess.run([*machine, *node], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if process.returncode:
        raise SystemExit(f"bench: {agent} could not be measured")
    figures: Figures = json.loads(process.stdout)
    return figures


def report(title: str, figures: Figures) -> None:
    texts = ", ".join(
        f"{key} {statistics.median(values):.4g} ({min(values):.4g} to {max(values):.4g})"
        for key, values in figures.items()
    )
    sys.stderr.write(f"{title}: {texts}\n")


def add(collected: Figures, figures: Figures) -> None:
    for key, values in figures.items():
        collected.setdefault(key, []).extend(values)


def line_of(row: Row, ours: Figures, theirs: Figures) -> tuple[str, ...]:
    """Returns the cells of a row; a figure that nobody measured is a dash."""
    own, other = (
        statistics.median(figures[row.figure]) if row.figure in figures else None for figures in (ours, theirs)
    )
    ratio = f"{own / other:.2f}" if own is not None and other and not row.absolute else "-"
    goal = "-" if row.goal is None else f"<= {row.goal}" if row.goal else "0"
    texts = ("-" if value is None else f"{value:.{row.digits}f}" for value in (own, other))
    return row.label, *texts, ratio, goal


def table(rows: Iterable[Row], parts: Container[str], peer: str, ours: Figures, theirs: Figures) -> str:
    head = ("what", "podwired", peer, "ratio", "to reach")
    lines = [line_of(row, ours, theirs) for row in rows if row.part in parts]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, tuple("-" * len(word) for word in head), *lines))


def unpack(folder: Path) -> Path:
    """Returns the folder with podwire's bundle in it, which is built first."""
    archive = subprocess.run([ROOT / "hack" / "build"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return folder
