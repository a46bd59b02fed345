"""A file that comes, changes and goes, and what a store reads of it."""

from __future__ import annotations

import os
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from cni.agent.stores import watchfile
from cni.agent.stores.watchfile import FileWatch
from cni.protocol import smallfile
from cni.protocol.errors import DecodingFailure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 10  # the longest that is waited for


class Reader:
    """A reader of a file, which puts contents and errors into a queue; `try again` asks to be read again."""

    def __init__(self, path: Path) -> None:
        self.path, self.results = path, Queue[str]()
        self.stop = Event()
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
