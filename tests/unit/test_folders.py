"""Folders and files for state: of their own modes, and never through what somebody else has put in their place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.agent import subnetenv
from cni.kernel import statefile
from cni.spec import folders
from cni.spec.address import parse_ip
from cni.spec.errors import InputOutput
from ipam.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, params=[0, 0o022])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def put(what: str, path: Path, victim: Path) -> None:
    """Something that is no regular file."""
    if what == "link":
        path.symlink_to(victim)
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


def modes(top: Path) -> set[str]:
    return {oct(found.stat().st_mode & 0o777) for found in top.rglob("*")}


def test_folders_are_made_with_all_above_them(tmp_path: Path) -> None:
    for _ in range(2):
        folders.make(f"{tmp_path}/a/b/c/", 0o755)
    assert modes(tmp_path) == {"0o755"}
    with pytest.raises(FileNotFoundError):
        folders.make("", 0o755)


def test_a_state_file_is_its_owners_alone(tmp_path: Path) -> None:
    statefile.write(f"{tmp_path}/a/b/file", b"content")
    assert modes(tmp_path / "a") == {"0o700", "0o600"}
    assert statefile.read(f"{tmp_path}/a/b/file") == b"content"


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_is_no_state_file_is_not_read_and_not_written_through(tmp_path: Path, what: str) -> None:
    victim, file = tmp_path / "victim", tmp_path / "file"
    victim.write_text("untouched")
    put(what, file, victim)
    (tmp_path / ".file.new").symlink_to(victim)
    assert statefile.read(str(file)) is None
    if what != "folder":
        statefile.write(str(file), b"content")
        assert statefile.read(str(file)) == b"content"
    assert victim.read_text() == "untouched"


def test_a_file_that_a_user_names_may_be_a_link_but_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("content")
    (tmp_path / "link").symlink_to("there")
    os.mkfifo(tmp_path / "pipe")
    assert statefile.read(f"{tmp_path}/link", links=True) == b"content"
    with pytest.raises(InputOutput, match="not a regular file"):
        statefile.read(f"{tmp_path}/pipe", links=True)


def test_subnet_env_is_everybodys_to_read_and_its_writers_alone(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "a" / "subnet.env"
    victim.write_text("untouched")
    assert subnetenv.write(str(file), "A=1\n")
    (tmp_path / "a" / ".subnet.env.new").symlink_to(victim)
    assert subnetenv.write(str(file), "A=2\n")
    assert not subnetenv.write(str(file), "A=2\n")
    assert (victim.read_text(), file.read_text()) == ("untouched", "A=2\n")
    assert modes(tmp_path / "a") == {"0o644"}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
    file.unlink()
    os.mkfifo(file)
    assert subnetenv.read(str(file)) is None
    assert subnetenv.write(str(file), "A=3\n")
    assert file.read_text() == "A=3\n"


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_what_is_no_lease_is_no_lease(tmp_path: Path, what: str) -> None:
    """It keeps its address, but nothing is read from where it leads."""
    victim, lease = tmp_path / "victim", tmp_path / "net" / "10.1.2.3"
    victim.write_bytes(b"pod\r\neth0")
    (tmp_path / "net").mkdir()
    put(what, lease, victim)
    store = Store(str(tmp_path / "net"))
    assert not store.read(parse_ip("10.1.2.3"))
    assert not store.create(parse_ip("10.1.2.3"), b"other\r\neth0")
    assert [content for _, content in store.scan()] in ([None], [b""])
    assert victim.read_bytes() == b"pod\r\neth0"
    store.close()


@pytest.mark.parametrize("name", ["lock", "last_reserved_ip.0"])
def test_files_of_the_lease_folder_are_not_written_through_links(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        Store(str(tmp_path / "net")).set_last(0, parse_ip("10.1.2.3"))
    assert victim.read_text() == "untouched"
