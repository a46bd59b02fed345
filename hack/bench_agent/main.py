"""Measures podwired against flanneld, interleaved in one run, and prints the ratios.

usage: hack/bench agent [--rounds N] [--only WORD] [--podwired PROGRAM]

Every round creates new namespaces for each agent: an etcd on a tmpfs, with 5,000 leases as flannel writes them, and the
agent alone. Figures are medians of the rounds. Needs root, or a user namespace, and the peers (hack/peers).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("sync", "change", "changes", "restart", "idle")


class Row(NamedTuple):
    """A row of the table. `goal` is a ratio, or with `absolute` podwired's own figure."""

    part: str
    figure: str
    label: str
    digits: int
    goal: float | None = None
    absolute: bool = False


ROWS = (
    Row("sync", "sync", "cold sync of 5,000 leases (s)", 2, 0.4),
    Row("sync", "subnet.env", "cold sync, until subnet.env (s)", 2),
    Row("sync", "cpu", "cold sync, CPU (s)", 2),
    Row("sync", "memory", "cold sync, peak memory (MiB)", 1, 1.2),
    Row("change", "change", "one change (ms)", 2, 2),
    Row("changes", "changes", "500 changes, 100 in a transaction (ms)", 1, 0.5),
    Row("restart", "events", "restart, nothing wrong: kernel changes", 0, 0, absolute=True),
    Row("restart", "heal", "restart, 300 entries lost: until healed (s)", 2, 0.4),
    Row("idle", "idle", "20 s idle, CPU (ms)", 1, 0, absolute=True),
)

Figures = dict[str, list[float]]


def measure(program: Path, parts: list[str]) -> Figures:
    flags = "-mnp" if os.geteuid() == 0 else "-Urmnp"
    machine = ["unshare", flags, "--fork", "--kill-child", "--mount-proc", "--"]
    node = [sys.executable, "-B", "-m", "hack.bench_agent.node", str(program), *parts]
    process = subprocess.run([*machine, *node], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if process.returncode:
        raise SystemExit(f"bench: {program} could not be measured")
    figures: Figures = json.loads(process.stdout)
    return figures


def line_of(row: Row, ours: float, theirs: float) -> tuple[str, ...]:
    ratio = "-" if row.absolute or not theirs else f"{ours / theirs:.2f}"
    goal = "-" if row.goal is None else f"{row.goal}" if row.absolute else f"<= {row.goal}"
    return row.label, f"{ours:.{row.digits}f}", f"{theirs:.{row.digits}f}", ratio, goal


def table(parts: list[str], ours: Figures, theirs: Figures) -> str:
    head = ("what", "podwired", "flanneld", "ratio", "to reach")
    rows = [row for row in ROWS if row.part in parts]
    lines = [line_of(row, statistics.median(ours[row.figure]), statistics.median(theirs[row.figure])) for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, tuple("-" * len(word) for word in head), *lines))


def unpack(folder: Path) -> Path:
    archive = subprocess.run([ROOT / "hack" / "build"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    return folder / "podwired"


def report(name: str, turn: int, figures: Figures) -> None:
    medians = ", ".join(f"{key} {statistics.median(values):.4g}" for key, values in figures.items())
    sys.stderr.write(f"{name}, round {turn + 1}: {medians}\n")


def compare(ours: Path, theirs: Path, rounds: int, parts: list[str]) -> str:
    figures: tuple[Figures, Figures] = ({}, {})
    for turn in range(rounds):
        for name, program, collected in zip(("podwired", "flanneld"), (ours, theirs), figures, strict=True):
            measured = measure(program, parts)
            report(name, turn, measured)
            for key, values in measured.items():
                collected.setdefault(key, []).extend(values)
    return table(parts, *figures)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="hack/bench agent", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each agent is measured (default: 3)")
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    parser.add_argument(
        "--podwired", type=Path, help="measure this program in its place: flanneld itself shows how much figures vary"
    )
    arguments = parser.parse_args()
    peers = subprocess.run([ROOT / "hack" / "peers"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    flanneld = Path(peers) / "flanneld"
    missing = [name for name in ("unshare", "etcd", "ip", "bridge", str(flanneld)) if not shutil.which(name)]
    if missing:
        sys.exit(f"bench: {', '.join(missing)}: not found")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that namespaces and folder are removed
    parts = [arguments.only] if arguments.only else list(PARTS)
    with tempfile.TemporaryDirectory() as folder:
        podwired = arguments.podwired.absolute() if arguments.podwired else unpack(Path(folder))
        sys.stdout.write(compare(podwired, flanneld, arguments.rounds, parts) + "\n")


if __name__ == "__main__":
    main()
