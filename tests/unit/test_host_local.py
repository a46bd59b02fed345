"""host-local as a separate program: every verb through `run`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.calls import NETWORK
from tests.unit.calls import call

if TYPE_CHECKING:
    from pathlib import Path


def test_host_local_by_its_own_name_serves_every_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "run"))
    monkeypatch.setattr("cni.effects.alive.addresses_in_use", set)
    network = NETWORK | {"ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": str(tmp_path)}}
    living = [{"containerID": "c1", "ifname": "eth0"}]

    def leased(verb: str, **members: object) -> list[str]:
        answer = call(network | members, {"CNI_COMMAND": verb}, "/opt/cni/bin/host-local")
        assert answer.status == 0, answer.stdout.text
        if verb == "ADD":
            assert answer.json["ips"] == [{"address": "10.1.2.2/24", "gateway": "10.1.2.1"}]
            assert answer.json["cniVersion"] == "1.1.0"
        else:
            assert answer.stdout.writes == []
        return [name for name in os.listdir(tmp_path / "net") if name.startswith("10.")]

    assert leased("ADD") == ["10.1.2.2"]
    assert leased("CHECK") == ["10.1.2.2"]
    assert leased("STATUS") == ["10.1.2.2"]
    assert leased("GC") == ["10.1.2.2"]
    assert leased("GC", **{"cni.dev/valid-attachments": living}) == ["10.1.2.2"]
    assert leased("DEL", **{"cni.dev/valid-attachments": living}) == []
    assert leased("DEL") == []
    code, message = call(network, {"CNI_COMMAND": "CHECK"}, "host-local").error
    assert (code, message) == (101, "host-local: Failed to find address added by container c1")


@pytest.mark.parametrize("valid", [[], None, [{"containerID": "c1", "ifname": "eth1"}]])
def test_host_local_gives_back_what_is_no_longer_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid: object
) -> None:
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "run"))
    network = NETWORK | {"ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": str(tmp_path)}}
    assert call(network, program="host-local").status == 0
    assert (tmp_path / "net/10.1.2.2").exists()
    answer = call(network | {"cni.dev/valid-attachments": valid}, {"CNI_COMMAND": "GC"}, "host-local")
    assert (answer.status, answer.stdout.writes) == (0, [])
    assert not (tmp_path / "net/10.1.2.2").exists()


def test_host_local_is_not_ready_when_it_has_nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "run"))
    monkeypatch.setattr("cni.effects.alive.addresses_in_use", set)
    network = NETWORK | {"ipam": {"type": "host-local", "subnet": "10.1.2.0/30", "dataDir": str(tmp_path)}}
    assert call(network, {"CNI_COMMAND": "STATUS"}, "host-local").status == 0
    assert call(network, program="host-local").status == 0
    full = "no IP addresses available in range set: 10.1.2.1-10.1.2.2"
    assert call(network, {"CNI_COMMAND": "STATUS"}, "host-local").error == (50, full)
    code, message = call(network, {"CNI_CONTAINERID": "c2"}, "host-local").error
    assert (code, message) == (11, f"failed to allocate for range 0: {full}")
