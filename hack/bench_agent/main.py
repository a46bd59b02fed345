"""Measures podwired against flanneld, interleaved in one run, and prints the ratios.

usage: hack/bench agent [--rounds N] [--only WORD] [--podwired PROGRAM]

Every round creates new namespaces for each agent: an etcd on a tmpfs, with 5,000 leases as flannel writes them, and the
agent alone. Figures are medians of the rounds. Needs root, or a user namespace, and the peers (hack/peers).
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from hack.benchmark import ROOT, Figures, Row, add, measure, report, table, unpack

FEW = "few"  # on a node of its own
PARTS = (FEW, "sync", "change", "changes", "restart", "idle")
PEER = "flanneld"
ROWS = (
    Row(FEW, FEW, "until subnet.env, 100 leases (s)", 2, 0.8),
    Row("sync", "sync", "cold sync of 5,000 leases (s)", 2, 0.33),
    Row("sync", "subnet.env", "cold sync, until subnet.env (s)", 2, 0.8),
    Row("sync", "cpu", "cold sync, CPU (s)", 2, 0.5),
    Row("sync", "memory", "cold sync, peak memory (MiB)", 1, 1.2),
    Row("change", "added", "one peer added (ms)", 2, 0.9),
    Row("change", "moved", "one peer moved (ms)", 2, 0.9),
    Row("change", "gone", "one peer gone (ms)", 2, 0.9),
    Row("changes", "500 added", "500 peers added, 100 in a transaction (ms)", 1, 0.45),
    Row("changes", "500 moved", "500 peers moved, 100 in a transaction (ms)", 1, 0.45),
    Row("changes", "500 gone", "500 peers gone, 100 in a transaction (ms)", 1, 0.45),
    Row("restart", "events", "restart, nothing wrong: kernel changes", 0, 0, absolute=True),
    Row("restart", "heal", "restart, 300 entries lost: until healed (s)", 2, 0.33),
    Row("idle", "idle", "20 s idle, CPU (ms)", 1, 0, absolute=True),
)


def compare(ours: Path, theirs: Path, rounds: int, parts: list[str]) -> str:
    collected: tuple[Figures, Figures] = ({}, {})
    for turn in range(rounds):
        for name, program, figures in zip(("podwired", PEER), (ours, theirs), collected, strict=True):
            for together in filter(None, ([FEW] * (FEW in parts), [part for part in parts if part != FEW])):
                measured = measure("hack.bench_agent.node", program, str(program), *together)
                report(f"{name}, round {turn + 1}", measured)
                add(figures, measured)
    return table(ROWS, parts, PEER, *collected)


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
    flanneld = Path(peers) / PEER
    missing = [name for name in ("unshare", "etcd", "ip", "bridge", str(flanneld)) if not shutil.which(name)]
    if missing:
        sys.exit(f"bench: {', '.join(missing)}: not found")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that namespaces and folder are removed
    parts = [arguments.only] if arguments.only else list(PARTS)
    with tempfile.TemporaryDirectory() as folder:
        podwired = arguments.podwired.absolute() if arguments.podwired else unpack(Path(folder)) / "podwired"
        sys.stdout.write(compare(podwired, flanneld, arguments.rounds, parts) + "\n")


if __name__ == "__main__":
    main()
