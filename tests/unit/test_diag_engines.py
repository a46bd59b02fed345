"""Policy engines beside podwired's, by what they leave on a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.diag.ailments.ailment import NodeView
from cni.diag.ailments.overlay import engines
from cni.diag.node.links import Link
from cni.kernel.nft import Chain

if TYPE_CHECKING:
    from pathlib import Path

ENFORCING = {"policies": {"in_force": True}}
CALICO, ROUTER = Chain(2, "filter", "cali-FORWARD"), Chain(2, "filter", "KUBE-POD-FW-ABC")
KINDNET = Chain(1, "kindnet-network-policies", "postrouting")
OWN, PROXY = Chain(1, "podwire-policy", "forward"), Chain(2, "filter", "KUBE-FORWARD")
CILIUM = Link(7, "cilium_host", "veth", "", True, 1500)


def names(
    monkeypatch: pytest.MonkeyPatch,
    *chains: Chain,
    agent: dict[str, object] | None = None,
    links: tuple[Link, ...] = (),
) -> list[str]:
    monkeypatch.setattr(engines, "chains", lambda: [*chains])
    node = NodeView((), links, (), "", (), ENFORCING if agent is None else agent, "")
    return [finding.evidence.partition("and ")[2] for finding in engines.find(node)]


def test_other_engines_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(monkeypatch, OWN, CALICO, CALICO) == ["chain cali-FORWARD is Calico's"]
    assert names(monkeypatch, ROUTER) == ["chain KUBE-POD-FW-ABC is kube-router's"]
    assert names(monkeypatch, links=(CILIUM,)) == ["the interface cilium_host is Cilium's"]


def test_without_policies_of_podwired_and_others_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(monkeypatch, OWN, PROXY) == []
    assert names(monkeypatch, CALICO, agent={"policies": None}) == []


@pytest.mark.parametrize(("text", "count"), [("  100  1234 0 2 65531 0 0 1  1\n", 1), ("", 0)])
def test_a_queue_that_nobody_reads_lets_all_pass(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, count: int
) -> None:
    (tmp_path / "queue").write_text(text)
    monkeypatch.setattr(engines, "LISTENERS", str(tmp_path / "queue"))
    assert len(names(monkeypatch, KINDNET)) == count
