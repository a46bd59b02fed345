"""The runtime's network configuration, in its folder once pods can be attached."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from cni.agent.cli.flags import InvalidOptions
from cni.agent.cli.options import parse_options
from cni.agent.node import conflist
from cni.agent.node.conflist import Conflist
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from pathlib import Path

TEXT = '{\n  "cniVersion": "1.0.0",\n  "name": "cbr0",\n  "plugins": [{"type": "flannel"}]\n}\n'
OTHER = TEXT.replace("flannel", "podwire")
NAME = "10-podwire.conflist"
INVALID = {
    "": "is empty",
    '{"name": "cbr0"': "is not JSON",
    "[]": "is not a JSON object",
    '{"plugins": [{"type": "flannel"}]}': "name: expected a text",
    '{"name": 7, "plugins": [{"type": "flannel"}]}': "name: expected a text",
    '{"Name": "cbr0", "plugins": [{"type": "flannel"}]}': "name: expected a text",
    '{"name": "cbr0"}': "plugins: expected a list of plugins",
    '{"name": "cbr0", "plugins": []}': "plugins: expected a list of plugins",
    '{"name": "cbr0", "plugins": {"type": "flannel"}}': "plugins: expected a list of plugins",
    '{"name": "cbr0", "type": "flannel"}': "plugins: expected a list of plugins",
    '{"name": "cbr0", "plugins": [{"type": "flannel"}, "portmap"]}': r"plugins\[1\]: expected an object with a type",
    '{"name": "cbr0", "plugins": [{"type": ""}]}': r"plugins\[0\]: expected an object with a type",
    '{"name": "", "plugins": []}': "name: expected a text; plugins: expected a list of plugins",
}


@pytest.fixture
def wanted(tmp_path: Path) -> Conflist:
    """Returns a valid source, and the name that it is to have in a folder that is not there yet."""
    source = tmp_path / NAME
    source.write_text(TEXT)
    return Conflist(str(source), str(tmp_path / "cni" / "net.d" / NAME))


def say(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def folder(wanted: Conflist) -> list[str]:
    """Returns the files that a runtime would load, and all others except podwired's own copy."""
    return [name for name in os.listdir(os.path.dirname(wanted.path)) if name != f".{NAME}.podwired"]


def test_the_list_is_copied_into_a_folder_that_may_have_to_be_made(wanted: Conflist) -> None:
    assert not conflist.is_installed(wanted)
    assert conflist.install(wanted)
    assert conflist.is_installed(wanted)
    assert (read(wanted.path), folder(wanted)) == (TEXT, [NAME])


def test_every_runtime_may_read_it_whatever_the_mask_is(wanted: Conflist) -> None:
    before = os.umask(0o077)
    try:
        conflist.install(wanted)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(wanted.path).st_mode) == 0o644


def test_what_is_there_already_is_not_written(wanted: Conflist) -> None:
    conflist.install(wanted)
    before = os.stat(wanted.path)
    assert not conflist.install(wanted)
    assert os.stat(wanted.path) == before


@pytest.mark.parametrize("text", [OTHER, TEXT.replace("\n", "\r\n"), TEXT.replace("cbr0", "ネットワーク")])
def test_a_change_is_followed_once(wanted: Conflist, text: str) -> None:
    conflist.install(wanted)
    with open(wanted.source, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    conflist.install(wanted)
    assert read(wanted.path) == text.replace("\r\n", "\n")
    assert not conflist.install(wanted)


def test_what_others_made_of_it_is_made_good(wanted: Conflist) -> None:
    conflist.install(wanted)
    for damage in ("", OTHER):
        say(wanted.path, damage)
        assert conflist.install(wanted)
        assert read(wanted.path) == TEXT
    os.unlink(wanted.path)
    assert conflist.install(wanted)


def test_a_reader_never_meets_half_of_it(wanted: Conflist) -> None:
    conflist.install(wanted)
    with open(wanted.path, encoding="utf-8") as reader:
        say(wanted.source, OTHER)
        conflist.install(wanted)
        assert reader.read() == TEXT
    assert folder(wanted) == [NAME]


def test_what_a_crash_left_is_no_obstacle(wanted: Conflist) -> None:
    conflist.install(wanted)
    beside = os.path.join(os.path.dirname(wanted.path), f".{NAME}.new")
    say(beside, "torn")
    say(wanted.source, OTHER)
    assert conflist.install(wanted)
    assert (read(wanted.path), folder(wanted)) == (OTHER, [NAME])


@pytest.mark.parametrize(("text", "error"), INVALID.items())
def test_what_no_runtime_would_take_is_refused_and_the_earlier_list_stays(
    wanted: Conflist, text: str, error: str
) -> None:
    conflist.install(wanted)
    say(wanted.source, text)
    with pytest.raises(CniError, match=f"{NAME}.*{error}"):
        conflist.install(wanted)
    assert (read(wanted.path), folder(wanted)) == (TEXT, [NAME])


def test_what_is_no_text_is_refused(wanted: Conflist) -> None:
    with open(wanted.source, "wb") as file:
        file.write(TEXT.encode("utf-16"))
    with pytest.raises(CniError, match=f"{NAME} is not UTF-8 text"):
        conflist.install(wanted)
    assert not conflist.is_installed(wanted)


def test_a_source_that_is_gone_is_an_error_and_the_list_stays(wanted: Conflist) -> None:
    conflist.install(wanted)
    os.unlink(wanted.source)
    with pytest.raises(FileNotFoundError):
        conflist.install(wanted)
    assert conflist.is_installed(wanted)


def test_what_was_copied_is_removed_without_a_trace(wanted: Conflist) -> None:
    assert conflist.remove(wanted) == []
    conflist.install(wanted)
    assert conflist.remove(wanted) == []
    assert os.listdir(os.path.dirname(wanted.path)) == []


@pytest.mark.parametrize("source", [OTHER, "{", "\udcff", None])
def test_what_was_copied_is_known_again_whatever_the_source_says_by_then(wanted: Conflist, source: str | None) -> None:
    conflist.install(wanted)
    os.unlink(wanted.source)
    if source is not None:
        with open(wanted.source, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(source)
    assert conflist.remove(wanted) == []
    assert os.listdir(os.path.dirname(wanted.path)) == []


def test_what_the_source_says_is_removed_though_nobody_remembers_it(wanted: Conflist) -> None:
    conflist.install(wanted)
    os.unlink(wanted.memory)
    assert conflist.remove(wanted) == []
    assert os.listdir(os.path.dirname(wanted.path)) == []


def test_what_is_gone_is_forgotten(wanted: Conflist) -> None:
    conflist.install(wanted)
    os.unlink(wanted.path)
    assert conflist.remove(wanted) == []
    assert os.listdir(os.path.dirname(wanted.path)) == []


def test_memory_that_was_lost_comes_back(wanted: Conflist) -> None:
    conflist.install(wanted)
    os.unlink(wanted.memory)
    assert not conflist.install(wanted)
    say(wanted.source, OTHER)
    assert conflist.remove(wanted) == []


@pytest.mark.parametrize("theirs", [OTHER, "", "\udcff"])
def test_what_others_wrote_is_not_removed(wanted: Conflist, theirs: str) -> None:
    conflist.install(wanted)
    with open(wanted.path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(theirs)
    (reasons,) = conflist.remove(wanted)
    assert reasons.startswith(wanted.path)
    assert "left alone" in reasons
    assert folder(wanted) == [NAME]


def test_the_list_keeps_its_name_in_the_runtimes_folder() -> None:
    assert parse_options(["--conflist=/a/10-b.conflist"], {}).conflist == Conflist(
        "/a/10-b.conflist", "/etc/cni/net.d/10-b.conflist"
    )
    variables = {"PODWIRED_CONFLIST": "/a/b.conflist", "PODWIRED_CONFLIST_DIR": "/d/"}
    assert parse_options([], variables).conflist == Conflist("/a/b.conflist", "/d/b.conflist")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--conflist=/a/10-b.conf"], r"--conflist: '/a/10-b.conf' does not end in \.conflist"),
        (["--conflist=/a/"], "--conflist: '/a/' does not end in"),
        (["--conflist-dir=/d"], "--conflist-dir: needs --conflist as well"),
        (["--conflist=/a/b.conflist", "--conflist-dir="], "--conflist-dir: is empty"),
        (["--conflist=/d/b.conflist", "--conflist-dir=/d/."], "--conflist: /d/b.conflist is where the runtime looks"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments: list[str], error: str) -> None:
    with pytest.raises(InvalidOptions, match=error):
        parse_options(arguments, {})
