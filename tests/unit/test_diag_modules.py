"""Modules that a kernel lacks, by the lists that its package brings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.diag.ailments import modules
from cni.diag.ailments.ailment import NodeView
from cni.diag.node.conflists import Network

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = {"type": "podwire", "ipMasq": True, "vlan": 5}
NETWORKS = (Network("/x", "net", (PLUGIN, {"type": "bandwidth"}), ""),)
NODE = NodeView((), (), NETWORKS, "", (), {"network": {"backend": "vxlan"}}, "")
BUILT_IN = "kernel/net/bridge/bridge.ko\nkernel/drivers/net/veth.ko\n"
FILES = """kernel/net/8021q/8021q.ko.xz: kernel/net/802/garp.ko.xz
kernel/net/netfilter/nf_tables.ko.zst:
kernel/net/netfilter/nft_chain_nat.ko:
kernel/net/sched/sch-tbf.ko:
kernel/drivers/net/vxlan/vxlan.ko:
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives the folder of the running kernel's modules; `ifb` is loaded."""
    monkeypatch.setattr(modules, "FOLDER", str(tmp_path / "lib"))
    monkeypatch.setattr(modules, "LOADED", str(tmp_path / "loaded"))
    (tmp_path / "loaded/ifb").mkdir(parents=True)
    folder = tmp_path / "lib" / os.uname().release
    folder.mkdir(parents=True)
    return folder


def test_a_module_that_is_in_no_list_and_not_loaded_is_missing(folder: Path) -> None:
    (folder / "modules.builtin").write_text(BUILT_IN)
    (folder / "modules.dep").write_text(FILES)
    [finding] = modules.find(NODE)
    assert (finding.name, finding.subject) == ("module-missing", "nft_masq")
    assert "network net needs it" in finding.evidence


@pytest.mark.parametrize("name", ["", "modules.dep"])
def test_without_both_lists_nothing_is_known(folder: Path, name: str) -> None:
    if name:
        (folder / name).write_text(FILES)
    assert list(modules.find(NODE)) == []


def test_a_reference_plugin_needs_other_modules(folder: Path, tmp_path: Path) -> None:
    (folder / "modules.builtin").write_text(BUILT_IN)
    (folder / "modules.dep").write_text(FILES)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "podwire").write_text("")
    (programs / "podwire").chmod(0o755)
    node = NODE._replace(bin_dirs=(str(programs),))
    assert [finding.subject for finding in modules.find(node)] == ["nft_masq"]
    (programs / "podwire").rename(programs / "reference")
    (programs / "podwire").symlink_to("reference")
    assert list(modules.find(node)) == []
