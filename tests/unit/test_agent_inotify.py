"""podwired notices what is done to the files that it has written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.agent.node import files
from cni.agent.runtime.inotify import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Written:
    """A file as the agent writes it, and what watches it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run" / "subnet.env"
        self.files = Files((str(self.path),))
        self.write("A=1\n")

    def write(self, text: str) -> None:
        files.write(str(self.path), text)
        self.files.renew()


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    watched = Written(tmp_path)
    yield watched
    watched.files.close()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("elsewhere")),
        lambda path: path.write_text("B=2\n"),
        lambda path: (path.unlink(), path.parent.rmdir()),
    ],
    ids=["removed", "moved away", "written over", "removed with its folder"],
)
def test_what_somebody_does_to_the_file_is_noticed_once_and_every_time(
    written: Written, change: Callable[[Path], object]
) -> None:
    for _ in range(2):
        assert not written.files.read()
        change(written.path)
        assert written.files.read()
        written.write("A=1\n")


def test_own_writing_and_other_files_are_no_matter(written: Written) -> None:
    written.write("A=2\n")
    (written.path.parent / "other.env").write_text("")
    os.unlink(written.path.parent / "other.env")
    assert not written.files.read()
