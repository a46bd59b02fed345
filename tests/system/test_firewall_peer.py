"""The reference firewall and podwire both have the administrator's chain asked first, whichever is called first."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.machine import MachineError, until
from tests.system.plugins import Attachment, Json, call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine

COMMON: Json = {"cniVersion": "1.0.0", "name": "net"}
BRIDGE = {**COMMON, "type": "bridge", "isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": "nftables"}
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]}
ADMIN = "CNI-ADMIN"


@pytest.mark.skipif(
    "nft" not in os.path.realpath(shutil.which("iptables") or ""),
    reason="iptables is not installed, or not iptables-nft",
)
@pytest.mark.parametrize("first", ["podwire", "reference"])
def test_what_the_administrator_drops_is_dropped_whoever_comes_first(
    machine: Machine, plugins: Path, peers: Path, first: str
) -> None:
    if not (peers / "firewall").exists():
        pytest.skip("absent: firewall (hack/peers brings it)")
    outside, pod = machine.outside(), machine.pod("pod1")
    outside.serve(80)
    outside.serve(81)
    for commands in (
        ("-P", "FORWARD", "DROP"),
        ("-N", ADMIN),
        ("-A", ADMIN, "-p", "tcp", "--dport", "81", "-j", "DROP"),
    ):
        machine.run("iptables-nft", *commands)
    attachment = Attachment("c1", pod.path)
    result = call(machine, plugins / "bridge", "ADD", {**BRIDGE, "ipam": IPAM}, attachment)
    config = {**COMMON, "type": "firewall", "backend": "iptables", "prevResult": result}
    makers = [plugins / "firewall", peers / "firewall"]
    for program in makers if first == "podwire" else reversed(makers):
        call(machine, program, "ADD", config, attachment)
        assert until(lambda: pod.ask("192.0.2.2", 80), "what the chain does not name passes")
        with pytest.raises(MachineError):
            pod.ask("192.0.2.2", 81, seconds=1)
        call(machine, program, "CHECK", config, attachment)
    jumps = [line for line in machine.run("iptables-nft", "-S").stdout.splitlines() if line.endswith(f"-j {ADMIN}")]
    assert len(jumps) == (2 if first == "podwire" else 1)  # the reference looks for its own alone
