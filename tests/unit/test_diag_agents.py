"""The processes that doctor takes for agents, and what each maintains, in a folder that looks like /proc."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.diag.ailments.ailment import NodeView
from cni.diag.ailments.overlay.agent import find
from cni.diag.node import agents

if TYPE_CHECKING:
    from pathlib import Path

NODE = NodeView((), (), (), "", (), None, "")
FILE = "/run/flannel/subnet.env"


class Processes:
    """A folder as /proc is; the caller's network namespace is `net:[1]`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.add(1, "self", name="self")

    def add(self, pid: int, program: str, *arguments: str, net: int = 1, parent: int = 1, name: str = "") -> Path:
        path = self._folder / (name or str(pid))
        (path / "ns").mkdir(parents=True)
        (path / "fd").mkdir()
        (path / "ns/net").symlink_to(f"net:[{net}]")
        (path / "stat").write_text(f"{pid} ({program}) S {parent} {' '.join(['0'] * 17)} {pid}0 0")
        (path / "cmdline").write_bytes("\0".join([program, *arguments]).encode())
        (path / "environ").write_bytes(b"PATH=/bin\0")
        return path


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Processes:
    monkeypatch.setattr(agents, "FOLDER", str(tmp_path))
    return Processes(tmp_path)


@pytest.mark.parametrize(
    ("first", "second"),
    [((), ()), ((), ("--subnet-file=" + FILE,)), (("-subnet-file", "/run/x"), ("--subnet-file=/run/x",))],
)
def test_two_flannelds_with_one_subnet_file_are_named(
    processes: Processes, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    processes.add(10, "flanneld", *first)
    processes.add(20, "flanneld", *second)
    [finding] = find(NODE)
    assert finding.name == "agent-twice"
    assert "10 and 20" in finding.evidence
    assert finding.remedy.startswith("kill 20 ")


def test_agents_of_other_files_and_namespaces_and_their_children_are_not(processes: Processes) -> None:
    processes.add(10, "flanneld")
    processes.add(20, "flanneld", "--subnet-file=/run/other")
    processes.add(30, "flanneld", net=2)
    processes.add(40, "flanneld", parent=10)
    processes.add(50, "podwired", "status")
    assert list(find(NODE)) == []


def test_flannel_beside_podwired_is_named(processes: Processes, tmp_path: Path) -> None:
    folder = tmp_path / "flannel"
    folder.mkdir()
    lock = folder / ".subnet.env.lock"
    lock.touch()
    (processes.add(10, "podwired") / "fd/3").symlink_to(lock)
    processes.add(20, "flanneld", f"--subnet-file={folder}/subnet.env")
    [finding] = find(NODE)
    assert finding.subject == "podwired and flanneld"
    assert f"{folder}/subnet.env" in finding.evidence
