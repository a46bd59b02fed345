"""Folders that can be created, and those that cannot."""

from __future__ import annotations

import posix
from typing import TYPE_CHECKING

import pytest

from cni.protocol import folders

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_is_made_with_all_above_it(tmp_path: Path) -> None:
    folders.make(f"{tmp_path}/a/b/c/", 0o700)
    folders.make(f"{tmp_path}/a/b", 0o700)
    assert (tmp_path / "a/b/c").is_dir()


@pytest.mark.parametrize("path", ["/proc/nowhere", "/proc/nowhere/a/b"])
def test_a_file_system_that_makes_none_is_an_error(path: str) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        folders.make(path, 0o700)


def test_a_folder_that_another_process_made_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = posix.mkdir
    seen: list[str] = []

    def slow(path: str, mode: int) -> None:
        seen.append(path)
        if seen.count(path) > 1:
            mkdir(path, mode)
        mkdir(path, mode)

    monkeypatch.setattr(posix, "mkdir", slow)
    folders.make(f"{tmp_path}/a/b", 0o700)
    assert (tmp_path / "a/b").is_dir()


def test_a_path_without_a_folder_above_it_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        folders.make("", 0o700)
