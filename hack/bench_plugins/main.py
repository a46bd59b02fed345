"""Measures podwire's built bundle against the reference plugins, interleaved in one run, and prints the ratios.

usage: hack/bench [--rounds N] [--only WORD]
       hack/bench agent [...]         the node agent podwired against flanneld, see hack/bench agent --help
       hack/bench policy [...]        NetworkPolicy against kube-network-policies, see hack/bench policy --help

Every figure is a median of whole processes, from fork to exit, in a network namespace of its own; absolute times
depend on the machine, the ratios hardly do. Needs root, or a user namespace, and the peers (hack/peers). KINDNET names
a program cni-kindnet, which podwire is then compared with, too; BEFORE names the folder of another bundle of podwire,
which it is compared with. Instructions are counted by perf, where the machine can do that, else podwire's alone by
valgrind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hack.bench_plugins.parts import PODS, Bench, add_namespace
from hack.benchmark import ROOT, unpack

PARTS = (
    "version",
    "attach",
    "resources",
    "crowd",
    "leases",
    "boot",
    "together",
    "chain",
    "names",
    "kindnet",
    "before",
    "instructions",
)
NAMES = ("bridge", "portmap", "bandwidth", "host-local")  # of the reference, by which podwire is called


def enter_namespaces() -> None:
    """Runs this module again as the first process of new namespaces, in which nothing is left behind."""
    if os.environ.get("PODWIRE_BENCH_INSIDE"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        os.mkdir("/run/netns")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return
    flags = "-mn" if os.geteuid() == 0 else "-Urmn"
    os.environ["PODWIRE_BENCH_INSIDE"] = "yes"
    module = [sys.executable, "-B", "-m", "hack.bench_plugins.main"]
    os.execvp("unshare", ["unshare", flags, "--", *module, *sys.argv[1:]])  # noqa: S606


def size_of(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return f"{size / 1e6:.1f} MB in {sum(1 for path in folder.rglob('*') if path.is_file())} files"


def main() -> None:
    if not shutil.which("unshare"):
        sys.exit("bench: the program unshare is missing: install util-linux")
    parser = argparse.ArgumentParser(
        prog="hack/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25, help="how often each call is measured (default: 25)")
    parser.add_argument("--only", choices=PARTS, help="measure this part alone")
    arguments = parser.parse_args()
    peers = subprocess.run([ROOT / "hack" / "peers"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if not os.environ.get("PODWIRE_BENCH_INSIDE"):
        enter_namespaces()
    with tempfile.TemporaryDirectory() as folder:
        bundle = unpack(Path(folder))
        for name in NAMES:
            (bundle / name).symlink_to("podwire")
        enter_namespaces()
        subprocess.run(["ip", "netns", "attach", "host", str(os.getpid())], check=True)
        for name in ["lone", *(f"pod{number}" for number in range(PODS + 1))]:
            add_namespace(name)
        bench = Bench(bundle, Path(peers), arguments.rounds)
        for part in PARTS:
            if arguments.only in (None, part):
                getattr(bench, part)()
        parts = [bench.table(), bench.counts, f"The bundle: {size_of(bundle)}."]
        sys.stdout.write("\n\n".join(filter(None, parts)) + "\n")


if __name__ == "__main__":
    main()
