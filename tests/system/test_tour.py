"""hack/tour: on a node that is broken in one of 16 ways doctor names this one alone, and its remedy works.

The tour looks itself, and ends at the first way of which that is not true. It runs once for all tests.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.machine import missing

if TYPE_CHECKING:
    from collections.abc import Mapping

TOUR = Path(__file__).parents[2] / "hack/tour"
HEALTHY = "nothing is wrong that podwire doctor looks for"
PARTS = ("evidence", "consequence", "remedy", "proof")
WAYS = {
    1: ("Flushed rules", "attachment-changed"),
    2: ("A route deleted", "attachment-changed"),
    3: ("A FORWARD policy that drops", "forward-dropped"),
    4: ("A firewall that rejects", "forward-dropped"),
    5: ("A wrong MTU", "path-mtu"),
    6: ("A full pool", "pool-exhausted"),
    7: ("A leaked lease", "leases-leaked"),
    8: ("podwired killed", "agent-gone"),
    9: ("podwired twice", "agent-twice"),
    10: ("A second file of the same network", "several-networks"),
    11: ("A host port taken by a process", "host-port-taken"),
    12: ("The bridge's address removed", "attachment-changed"),
    13: ("The VXLAN device down", "tunnel-port-taken"),
    14: ("UDP port 8472 filtered at a peer", "tunnel-filtered"),
    15: ("br_netfilter off", "bridge-not-filtered"),
    16: ("A full table of connections", "conntrack-full"),
}
LACKING = {15: "bridge/bridge-nf-call-iptables", 16: "netfilter/nf_conntrack_max"}  # sysctls that a kernel may not have

pytestmark = pytest.mark.xdist_group("tour")


@pytest.fixture(scope="module")
def shown(bundle: Path) -> Mapping[int, str]:
    """Returns what the tour shows of each way, by number."""
    if reason := missing():
        pytest.skip(reason)
    numbers = [number for number in WAYS if number not in LACKING or Path(f"/proc/sys/net/{LACKING[number]}").exists()]
    done = subprocess.run(
        [TOUR, *map(str, numbers)],
        env={**os.environ, "PODWIRE_BUNDLE": str(bundle)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    texts = {}
    for section in done.stdout.split("\n\n"):
        number, dot, text = section.lstrip("\n").partition(". ")
        if dot and number.isdecimal():
            texts[int(number)] = text
        elif texts:  # of the same way
            texts[max(texts)] += f"\n{section}"
    if done.returncode:
        texts[max(texts, default=min(WAYS))] = f"the tour ended here:\n{done.stdout[-3000:]}"
    return texts


@pytest.mark.parametrize("number", WAYS, ids=lambda number: WAYS[number][0])
def test_doctor_names_the_cause_alone_and_its_remedy_works(shown: Mapping[int, str], number: int) -> None:
    name, finding = WAYS[number]
    if number in LACKING and number not in shown and max(shown) > number:
        pytest.skip(f"the kernel has no sysctl net/{LACKING[number]}")
    text = shown.get(number, "the tour ended before")
    assert text.startswith(name), text
    before, _, after = text.rpartition("# podwire doctor\n")
    assert after.startswith(HEALTHY)
    _, _, report = before.partition("# podwire doctor\n")
    assert report.startswith(f"{finding}: ")
    assert all(f"\n  {part}: " in report for part in PARTS)
