"""A file that comes, changes and goes, and what a store reads of it."""

from __future__ import annotations

import errno
import os
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from cni.agent.stores import folderwatch, watchfile
from cni.agent.stores.folderwatch import FolderWatch, StopEvent, folders_of
from cni.agent.stores.watchfile import FileWatch
from cni.protocol import smallfile
from cni.protocol.errors import DecodingFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 10  # the longest that is waited for


class Reader:
    """A reader of a file, which puts contents and errors into a queue; `try again` asks to be read again."""

    def __init__(self, path: Path) -> None:
        self.path, self.results = path, Queue[str]()
        self.stop = StopEvent()
        self.watch = FileWatch(str(path), self._read, self.results.put, self.stop)

    def _read(self) -> bool:
        text = smallfile.read(str(self.path)).decode()
        if text.startswith("malformed"):
            raise DecodingFailure(f"{text} content")
        if text.startswith("defect"):
            raise ZeroDivisionError
        self.results.put(text)
        return text != "try again"

    def put(self, text: str) -> None:
        beside = self.path.with_suffix(".new")
        beside.write_text(text)
        os.rename(beside, self.path)

    def expect(self, text: str) -> None:
        """Takes results until the text; before it only the file's absence comes, which is reported again and again."""
        while (result := self.results.get(timeout=SECONDS)) != text:
            assert result == f"{self.path}: No such file or directory"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.setattr(watchfile, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(watchfile, "SETTLE_SECONDS", 0.0)
    running = Reader(tmp_path / "file")
    thread = Thread(target=running.watch.run)
    thread.start()
    yield running
    running.stop.set()
    thread.join()


def test_a_file_is_waited_for_and_followed(reader: Reader) -> None:
    reader.expect(f"{reader.path}: No such file or directory")
    for text in ("one", "three"):
        reader.put(text)
        reader.expect(text)
    reader.path.unlink()
    reader.expect(f"{reader.path}: No such file or directory")
    reader.put("again")
    reader.expect("again")


def test_a_file_that_stays_is_read_once_and_read_again_when_it_changes(reader: Reader) -> None:
    reader.put("one")
    reader.expect("one")
    os.utime(reader.path, (1, 1))
    reader.expect("one")
    assert reader.results.empty()


def test_malformed_content_is_reported_with_the_path_and_once(reader: Reader) -> None:
    for text in ("malformed", f"malformed {reader.path}"):
        reader.put(text)
        reader.expect(f"{text} content" if " " in text else f"{reader.path}: {text} content")
    assert reader.results.empty()


def test_a_reader_that_is_not_content_reads_again(reader: Reader) -> None:
    reader.put("try again")
    for _ in range(3):
        reader.expect("try again")


def test_a_defect_does_not_end_it(reader: Reader) -> None:
    reader.put("defect")
    while "defect of podwired (ZeroDivisionError" not in reader.results.get(timeout=SECONDS):
        pass
    reader.put("one")
    while reader.results.get(timeout=SECONDS) != "one":
        pass


class Looks:
    """A file's state, which counts how often it was asked for."""

    def __init__(self) -> None:
        self.count = 0
        self.read = Queue[None]()

    def __call__(self, path: str) -> object:
        self.count += 1
        return smallfile.state(path)

    def take(self) -> bool:
        self.read.put(None)
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Gives a folder with a file as Kubernetes mounts a ConfigMap: `file` leads to `..data/file`, which leads on."""
    (tmp_path / "..one").mkdir()
    (tmp_path / "..one" / "file").write_text("one")
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "file").symlink_to("..data/file")
    return tmp_path


def run(watch: FileWatch) -> Thread:
    thread = Thread(target=watch.run)
    thread.start()
    return thread


def test_a_file_that_stays_is_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that has nothing to do does nothing."""
    monkeypatch.setattr(watchfile, "LOOK_SECONDS", 0.005)
    looks, stop = Looks(), StopEvent()
    thread = run(FileWatch(str(folder / "file"), looks.take, pytest.fail, stop, looks))
    looks.read.get(timeout=SECONDS)
    thread.join(0.2)  # forty looks
    assert looks.count == 1
    stop.set()
    thread.join()


def exchange(folder: Path) -> None:
    """Changes the ConfigMap as kubelet does."""
    (folder / "..two").mkdir()
    (folder / "..two" / "file").write_text("two")
    (folder / "..new").symlink_to("..two")
    (folder / "..new").rename(folder / "..data")


def rewrite(folder: Path) -> None:
    (folder / "..one" / "file").write_text("three")


def touch(folder: Path) -> None:
    os.utime(folder / "file", (1, 1))


@pytest.mark.parametrize("change", [exchange, rewrite, touch])
def test_the_kernel_tells_of_changes(
    folder: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchfile, "SELDOM_SECONDS", 86400.0)
    monkeypatch.setattr(watchfile, "SETTLE_SECONDS", 0.0)
    looks, stop = Looks(), StopEvent()
    thread = run(FileWatch(str(folder / "file"), looks.take, pytest.fail, stop, looks))
    looks.read.get(timeout=SECONDS)
    change(folder)
    looks.read.get(timeout=SECONDS)
    stop.set()
    thread.join()


def test_a_file_is_looked_at_where_the_kernel_tells_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user has a limited number of these descriptors."""
    monkeypatch.setattr(watchfile, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(folderwatch, "Inotify", refuse)
    looks, stop = Looks(), StopEvent()
    thread = run(FileWatch(str(folder / "file"), looks.take, pytest.fail, stop, looks))
    looks.read.get(timeout=SECONDS)
    rewrite(folder)
    looks.read.get(timeout=SECONDS)
    stop.set()
    thread.join()


def refuse() -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_folder_that_is_missing_is_not_covered(tmp_path: Path) -> None:
    watch = FolderWatch(StopEvent())
    assert watch.cover([str(tmp_path / "file")])
    assert not watch.cover([str(tmp_path / "folder" / "file")])
    watch.close()


def test_the_folders_of_all_links_on_the_way_count(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "way").symlink_to(folder)
    assert folders_of(str(folder / "file")) == {str(folder), str(folder / "..one")}
    assert folders_of(str(other / "way" / "file")) == {str(other), str(folder), str(folder / "..one")}
    (other / "loop").symlink_to("loop")
    assert folders_of(str(other / "loop")) == {str(other)}
