"""Files at paths of a user are read up to a limit, whatever kind they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.protocol import smallfile

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"", b"some\0text\xff", b"x" * 200_000):
        path.write_bytes(data)
        assert smallfile.read(str(path)) == data


def test_a_file_may_be_as_large_as_is_said_and_no_larger(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert smallfile.read(str(path), 100) == b"x" * 100
    with pytest.raises(OSError, match="larger than 99 bytes"):
        smallfile.read(str(path), 99)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert smallfile.read(str(tmp_path / "link")) == b"text"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file") as raised:
        smallfile.read(str(path))
    assert raised.value.strerror == "not a regular file"


def test_a_device_without_an_end_is_not_read() -> None:
    with pytest.raises(OSError, match="not a regular file"):
        smallfile.read("/dev/zero")


def test_a_folder_and_what_is_absent_are_reported_as_that(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        smallfile.read(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        smallfile.read(str(tmp_path / "absent"))


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    before = len(os.listdir("/proc/self/fd"))
    smallfile.read(str(tmp_path / "file"))
    for path, largest in ((str(tmp_path), 9), ("/dev/null", 9), (str(tmp_path / "file"), 1)):
        with pytest.raises(OSError, match=r"."):
            smallfile.read(path, largest)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_state_of_a_file_tells_whether_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    states = [smallfile.state(str(path))]
    for text in ("a", "ab", ""):
        path.write_text(text)
        states.append(smallfile.state(str(path)))
        assert smallfile.state(str(path)) == states[-1]
    assert len(set(states)) == 4
