"""The network's configuration in a file that comes, changes and goes."""

from __future__ import annotations

import os
from queue import Queue
from threading import Event, Thread
from typing import TYPE_CHECKING

import pytest

from cni.agent.model.network import NetworkConfig
from cni.agent.stores.kube import file as kubefile
from cni.agent.stores.kube.file import NetworkFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Said = Queue[NetworkConfig | str]

GOOD = '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": %d}}'
SECONDS = 10  # the longest that is waited for


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Said]:
    """Give what is told of net-conf.json, which is looked at often."""
    monkeypatch.setattr(kubefile, "LOOK_SECONDS", 0.005)
    told: Said = Queue()
    stop = Event()
    thread = Thread(target=NetworkFile(str(tmp_path / "net-conf.json"), told.put, told.put, stop).run)
    thread.start()
    yield told
    stop.set()
    thread.join()


def put(folder: Path, text: str) -> None:
    (folder / "new").write_text(text)
    os.rename(folder / "new", folder / "net-conf.json")


def expect(said: Said, what: object) -> None:
    """The next but for the file's absence, which is told again and again."""
    for _ in range(1000):
        told = said.get(timeout=SECONDS)
        vni = told.backend.vni if isinstance(told, NetworkConfig) else None
        if (vni is not None and vni == what) or (isinstance(what, str) and isinstance(told, str) and what in told):
            return
        assert isinstance(told, str), told
        assert "No such file" in told
    pytest.fail(f"{what} is not told")


def test_a_file_is_waited_for_and_followed(said: Said, tmp_path: Path) -> None:
    expect(said, "net-conf.json: No such file or directory")
    put(tmp_path, GOOD % 1)
    expect(said, 1)
    put(tmp_path, GOOD % 22)
    expect(said, 22)
    put(tmp_path, "{")
    expect(said, "net-conf.json is not JSON")
    put(tmp_path, '{"Network": "10.5.0.0/16"}')
    expect(said, "net-conf.json: invalid network configuration: Backend.Type: 'udp' is not supported")
    (tmp_path / "net-conf.json").unlink()
    expect(said, "No such file")
    put(tmp_path, GOOD % 333)
    expect(said, 333)


def test_a_file_that_stays_is_told_once(said: Said, tmp_path: Path) -> None:
    put(tmp_path, GOOD % 1)
    expect(said, 1)
    os.utime(tmp_path / "net-conf.json", (1, 1))
    expect(said, 1)
    assert said.empty()
