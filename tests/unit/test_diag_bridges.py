"""Bridges of pods that bypass policies of podwired, by folders that look like /sys/class/net and /proc/sys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.diag.ailments import bridges
from cni.diag.ailments.ailment import NodeView
from cni.diag.node.attachments import OWN, PRESENT, Attached
from cni.kernel import sysctl
from cni.protocol.owner import Owner

if TYPE_CHECKING:
    from pathlib import Path

ENFORCING: dict[str, Any] = {"policies": {"in_force": True}}


def attached(number: int) -> Attached:
    owner = Owner("net", f"c{number}", "eth0")
    address = (f"10.1.2.{number}/24",)
    return Attached(owner, "", "podwire", OWN, address, f"veth{number}", PRESENT, (), (), "", 0.0, None)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives a node with two pods on cni0 and no services; its setting is off."""
    links = tmp_path / "net"
    (links / "cni0").mkdir(parents=True)
    for name in ("veth2", "veth3"):
        (links / name / "brport").mkdir(parents=True)
        (links / name / "brport/isolated").write_text("0\n")
        (links / name / "master").symlink_to(links / "cni0")
    (tmp_path / "sys/net/bridge").mkdir(parents=True)
    (tmp_path / "sys/net/bridge/bridge-nf-call-iptables").write_text("0\n")
    monkeypatch.setattr(bridges, "FOLDER", str(links))
    monkeypatch.setattr(sysctl, "ROOT", f"{tmp_path}/sys/")
    monkeypatch.setattr(bridges, "chains", list)
    return tmp_path


def consequences(agent: dict[str, Any] | None) -> list[str]:
    node = NodeView((attached(2), attached(3)), (), (), "", (), agent, "")
    return [finding.consequence for finding in bridges.find(node)]


def test_policies_do_not_hold_on_a_bridge_that_is_not_filtered(root: Path) -> None:
    assert consequences(ENFORCING) == ["NetworkPolicies do not hold between pods of this node"]
    assert consequences({"policies": None}) == consequences(None) == []
    (root / "sys/net/bridge/bridge-nf-call-iptables").write_text("1\n")
    assert consequences(ENFORCING) == []


def test_ports_that_are_isolated_send_by_the_host(root: Path) -> None:
    for name in ("veth2", "veth3"):
        (root / "net" / name / "brport/isolated").write_text("1\n")
    assert consequences(ENFORCING) == []
