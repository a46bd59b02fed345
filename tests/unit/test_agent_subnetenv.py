"""The file for plugins, in flannel's words."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from cni.agent.node import files, subnetenv
from cni.config.flannel import SubnetEnv
from cni.protocol.address import parse_net

if TYPE_CHECKING:
    from pathlib import Path

FOUR = parse_net("10.42.0.0/16"), parse_net("10.42.7.0/24")
SIX = parse_net("2001:cafe:42::/56"), parse_net("2001:cafe:42:1::/64")
TEXT = """FLANNEL_NETWORK=10.42.0.0/16
FLANNEL_SUBNET=10.42.7.1/24
FLANNEL_IPV6_NETWORK=2001:cafe:42::/56
FLANNEL_IPV6_SUBNET=2001:cafe:42:1::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flannel" / "subnet.env"


def test_the_text_is_flannels() -> None:
    assert subnetenv.text_of([FOUR, SIX], 1450, masquerades=True) == TEXT


def test_a_family_that_is_not_used_has_no_lines() -> None:
    assert subnetenv.text_of([FOUR], 1500, masquerades=False).splitlines() == [
        "FLANNEL_NETWORK=10.42.0.0/16",
        "FLANNEL_SUBNET=10.42.7.1/24",
        "FLANNEL_MTU=1500",
        "FLANNEL_IPMASQ=false",
    ]
    assert "FLANNEL_SUBNET" not in subnetenv.text_of([SIX], 1500, masquerades=False)


def test_what_is_written_is_read_again(path: Path) -> None:
    assert files.write(str(path), TEXT)
    spaces = subnetenv.read(str(path))
    assert spaces == SubnetEnv((FOUR[0], SIX[0]), (FOUR[1], SIX[1]), 1450, masquerades=True)


def test_the_file_has_flannels_modes_whatever_the_mask_is(path: Path) -> None:
    before = os.umask(0o077)
    try:
        files.write(str(path), TEXT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_is_said_already_is_not_written(path: Path) -> None:
    files.write(str(path), TEXT)
    before = path.stat()
    assert not files.write(str(path), TEXT)
    assert path.stat() == before
    assert files.write(str(path), TEXT.replace("1450", "1400"))
    assert "FLANNEL_MTU=1400" in path.read_text()


def test_nothing_else_lies_beside_the_file_and_readers_keep_what_they_opened(path: Path) -> None:
    files.write(str(path), TEXT)
    with path.open() as reader:
        files.write(str(path), TEXT.replace("1450", "1400"))
        assert reader.read() == TEXT
    assert os.listdir(path.parent) == ["subnet.env"]


def test_a_torn_or_strange_file_is_replaced_and_read_as_none(path: Path) -> None:
    path.parent.mkdir()
    for content in (b"", b"FLANNEL_NETWORK=10.4", b"\xff\xfe\0", TEXT.encode()[:60]):
        path.write_bytes(content)
        assert subnetenv.read(str(path)) is None
        (path.parent / ".subnet.env.new").write_bytes(b"left by a crash")
        assert files.write(str(path), TEXT)
        assert (path.read_text(), os.listdir(path.parent)) == (TEXT, ["subnet.env"])


def test_where_there_is_no_file_nothing_is_read_and_nothing_removed(path: Path) -> None:
    assert subnetenv.read(str(path)) is None
    files.remove(str(path))
    files.write(str(path), TEXT)
    files.remove(str(path))
    assert not path.exists()


def test_a_file_that_cannot_be_written_is_an_error(path: Path) -> None:
    path.parent.write_text("no folder")
    with pytest.raises(OSError, match=r"/flannel"):
        files.write(str(path), TEXT)
