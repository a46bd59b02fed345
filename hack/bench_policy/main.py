"""Measures podwired's NetworkPolicy against kube-network-policies, interleaved in one run, and prints the ratios.

usage: hack/bench policy [--rounds N] [--only PART] [--bundle FOLDER] [--peer PROGRAM] [--whole-machine]

The peer judges first packets in user space, so its kernel needs nft_queue and nfnetlink_queue. Go builds it:
go install sigs.k8s.io/kube-network-policies/cmd/kube-network-policies/standard@v1.1.1 (the program is `standard`).
Without it podwired is measured alone. Every part of a round creates a new machine for each agent, with the API of a
cluster and two pods. Figures are medians; CPU is that of both pods and the agent together. Needs root, or a user
namespace, and a C compiler.
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

PARTS = ("few", "many", "first", "scale", "add")
PEER = "kube-network-policies"
PEER_SOURCE = "sigs.k8s.io/kube-network-policies/cmd/kube-network-policies/standard@v1.1.1"


ROWS = (
    Row("few", "few", "new connection, 3 policies select: CPU (µs)", 1, 0.3),
    Row("many", "many", "new connection, 100 policies select: CPU (µs)", 1, 0.1),
    Row("few", "trips", "round trip: CPU (µs)", 2, 1.0),
    Row("first", "first", "first policy of a pod in force (ms)", 1, 50, absolute=True),
    Row("scale", "memory", "100,000 pods, 10,000 policies: memory (MiB)", 1, 0.2),
    Row("scale", "peak", "the same, peak memory (MiB)", 1),
    Row("scale", "cpu", "the same, CPU until in force (s)", 1, 0.6),
    Row("scale", "seconds", "the same, until in force (s)", 1),
    Row("scale", "idle", "the same, 20 s idle: CPU (ms)", 1, 0, absolute=True),
    Row("few", "restart", "restart, nothing wrong: kernel changes", 0, 0, absolute=True),
    Row("add", "more", "ADD with policies: more than without (ms)", 1, 3, absolute=True),
)


def compare(agents: dict[str, Path], traffic: Path, rounds: int, parts: list[str], options: list[str]) -> str:
    collected: dict[str, Figures] = {"podwired": {}, PEER: {}}
    for part in parts:
        for turn in range(1 if part == "scale" else rounds):
            for name, agent in agents.items():
                if part == "add" and name == PEER:
                    continue
                figures = measure("hack.bench_policy.node", agent, part, str(agent), str(traffic), *options)
                report(f"{name}, {part}, round {turn + 1}", figures)
                add(collected[name], figures)
    return table(ROWS, parts, PEER, *collected.values())


def arguments_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hack/bench policy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each agent is measured (default: 3)")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone, or these")
    parser.add_argument("--bundle", type=Path, help="an unpacked bundle, instead of building one")
    parser.add_argument(
        "--whole-machine",
        action="store_true",
        help="of connections, count the CPU time of the whole machine, which has to do nothing else: where the kernel "
        "accounts for interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING, as Debian's), no process has what packets cost it",
    )
    parser.add_argument("--peer", default=PEER, help=f"the peer's program (default: {PEER} in PATH)")
    return parser.parse_args()


def main() -> None:
    arguments = arguments_of()
    missing = [name for name in ("unshare", "ip", "cc") if not shutil.which(name)]
    if missing:
        sys.exit(f"bench: {', '.join(missing)}: not found")
    peer = shutil.which(arguments.peer)
    if peer is None:
        sys.stderr.write(f"bench: podwired alone: {arguments.peer}: not found (go install {PEER_SOURCE})\n")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that namespaces and folder are removed
    with tempfile.TemporaryDirectory() as folder:
        traffic = Path(folder) / "traffic"
        source = ROOT / "hack" / "bench_policy" / "traffic.c"
        subprocess.run(["cc", "-O2", "-pthread", "-o", traffic, source], check=True)
        bundle = arguments.bundle.absolute() if arguments.bundle else unpack(Path(folder))
        agents = {"podwired": bundle / "podwired"} | ({PEER: Path(peer).absolute()} if peer else {})
        options = ["whole"] if arguments.whole_machine else []
        sys.stdout.write(compare(agents, traffic, arguments.rounds, arguments.only or list(PARTS), options) + "\n")


if __name__ == "__main__":
    main()
