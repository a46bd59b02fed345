"""The reference firewall plugin and podwire configure firewalld alike, and release each other's sources."""

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
SOURCES = {"10.1.2.7/32", "2001:db8::7/128"}
INTERNAL = {"backend": "firewalld", "firewalldZone": "internal"}


def test_both_leave_the_same_and_release_the_others(
    usual_machine: Machine, bundle: Path, peers: Path, tmp_path: Path
) -> None:
    if not (peers / "firewall").exists():
        pytest.skip("absent: firewall (hack/peers brings it)")
    (tmp_path / "firewall").symlink_to(bundle / "podwire")
    machine = usual_machine
    firewalld.start(machine)
    attachment = Attachment("c1", machine.pod("pod1").path)
    ours, theirs = tmp_path / "firewall", peers / "firewall"

    def active() -> dict[str, set[str]]:
        """Returns the sources of the zones that have any."""
        return {zone: set(members["sources"]) for zone, members in firewalld.zones(machine, "getActiveZones").items()}

    for settings, zone, maker, releaser in ({}, "trusted", theirs, ours), (INTERNAL, "internal", ours, theirs):
        config: Json = {"cniVersion": "1.0.0", "name": "net", "type": "firewall", "prevResult": PREVIOUS, **settings}
        other = ours if maker == theirs else theirs
        answer = call(machine, maker, "ADD", config, attachment)
        assert active() == {zone: SOURCES}
        assert call(machine, other, "ADD", config, attachment)["ips"] == answer["ips"]  # it finds its sources there
        for program in (maker, other):
            call(machine, program, "CHECK", config, attachment)
        call(machine, releaser, "DEL", config, attachment)
        assert active() == {}
        call(machine, maker, "DEL", config, attachment)  # it finds nothing
