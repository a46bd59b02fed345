"""The reference firewall plugin and podwire leave the same with firewalld, and release what the other has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns import firewalld
from tests.system.plugins import Attachment, Json, call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine

pytestmark = firewalld.NEEDS_FIREWALLD

PREVIOUS = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/pod1"}],
    "ips": [{"address": "10.1.2.7/24", "interface": 1}, {"address": "2001:db8::7/64", "interface": 1}],
}
ZONES = ("trusted", "internal")


def test_both_leave_the_same_and_release_the_others(
    machine: Machine, bundle: Path, peers: Path, tmp_path: Path
) -> None:
    if not (peers / "firewall").exists():
        pytest.skip("absent: firewall (hack/peers brings it)")
    (tmp_path / "firewall").symlink_to(bundle / "podwire")
    firewalld.start(machine)
    who = Attachment("c1", machine.pod("pod1").path)
    programs = {"podwire": tmp_path / "firewall", "reference": peers / "firewall"}

    def sources() -> list[list[str]]:
        return [firewalld.sources(machine, zone) for zone in ZONES]

    for settings, zone in ({}, 0), ({"backend": "firewalld", "firewalldZone": "internal"}, 1):
        config: Json = {"cniVersion": "1.0.0", "name": "net", "type": "firewall", "prevResult": PREVIOUS, **settings}
        for maker, releaser in (("reference", "podwire"), ("podwire", "reference"), ("podwire", "podwire")):
            for _ in range(2):  # the second finds its sources there
                answer = call(machine, programs[maker], "ADD", config, who)
                assert answer["ips"] == call(machine, programs["reference"], "ADD", config, who)["ips"]
            assert sources()[zone] == ["10.1.2.7/32", "2001:db8::7/128"], maker
            assert sources()[1 - zone] == []
            for program in programs.values():
                call(machine, program, "CHECK", config, who)
            for _ in range(2):  # the second finds nothing
                call(machine, programs[releaser], "DEL", config, who)
            assert sources() == [[], []], releaser
