"""Folders of leases that podwire uninstall may remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.diag.belongings import state
from cni.diag.belongings.belonging import Belonging, Kept

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives a folder of leases in which nothing is leased, and to which podwire has an index."""
    monkeypatch.setattr(state, "index_folder", lambda _: str(tmp_path))
    folder = tmp_path / "networks" / "net"
    folder.mkdir(parents=True)
    for name in ("lock", "last_reserved_ip.0"):
        (folder / name).touch()
    return folder


def of(folder: Path) -> Belonging | Kept:
    [thing] = [each for each in state.lease_folders([str(folder.parent)]) if each.object == f"{folder}/"]
    return thing


def test_a_folder_without_leases_is_removed(folder: Path) -> None:
    thing = of(folder)
    assert isinstance(thing, Belonging)
    thing.remove()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["10.1.2.3", "locksmith"])
def test_another_file_keeps_the_folder(folder: Path, name: str) -> None:
    (folder / name).touch()
    assert isinstance(of(folder), Kept)


def test_a_lease_that_comes_meanwhile_stays(folder: Path) -> None:
    thing = of(folder)
    assert isinstance(thing, Belonging)
    lease = folder / "10.1.2.3"
    lease.touch()
    with pytest.raises(OSError, match="not empty"):
        thing.remove()
    assert lease.exists()
