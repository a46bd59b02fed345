"""Tests the agent's local socket: who may take its path, and that nothing that is sent to it disturbs the agent."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.runtime import control
from cni.agent.runtime.control import Asked, ControlSocket, open_control, remove_left_over
from cni.agent.runtime.server import CONNECTIONS, REQUEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUESTION = b'{"version": 1, "ask": "echo"}\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def path(folder: Path) -> str:
    return str(folder / "agent.sock")


@pytest.fixture
def served(path: str) -> Iterator[str]:
    """Gives the path of a socket that answers each question with itself."""
    agent = ControlSocket(path)
    agent.start(lambda asked: asked.answer({"asked": dict(asked.request)}))
    yield path
    agent.close()


def exchange(path: str, data: bytes, *, half: bool = False) -> bytes:
    """Sends bytes and returns the answer; empty if the connection is closed without one."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        try:
            connection.sendall(data)
            if half:
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except (ConnectionResetError, BrokenPipeError):
            return b""


def ask(path: str, data: bytes = QUESTION) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(exchange(path, data))
    return answer


def test_a_question_is_answered_in_one_line(served: str) -> None:
    answer = exchange(served, QUESTION)
    assert answer.count(b"\n") == 1
    assert answer.endswith(b"\n")
    assert json.loads(answer) == {"version": 1, "asked": {"version": 1, "ask": "echo"}}


@pytest.mark.parametrize(
    ("request_bytes", "error"),
    [
        (b"\n", "empty"),
        (b"\x00\xff\xfe\n", "not JSON"),
        (b"GET / HTTP/1.1\r\n\r\n", "not JSON"),
        (b"[1]\n", "not an object"),
        (b"[" * 5000 + b"\n", "nested too deep"),
        (b'{"ask": "why"}\n', "version: None is not known"),
        (b'{"version": 2}\n', "version: 2 is not known"),
        (b'{"version": "1"}\n', "version: '1' is not known"),
        (b"x" * REQUEST_BYTES, f"longer than {REQUEST_BYTES} bytes"),
    ],
)
def test_nonsense_is_an_error_and_harms_no_other(served: str, request_bytes: bytes, error: str) -> None:
    answer = ask(served, request_bytes)
    assert answer["version"] == 1
    assert error in answer["error"]
    assert "asked" in ask(served)


def test_half_a_line_is_no_request(served: str) -> None:
    assert exchange(served, QUESTION[:-1], half=True) == b""
    exchange(served, b"x" * (100 * REQUEST_BYTES))  # is not read to its end
    assert "asked" in ask(served)


def test_a_thousand_connections_that_say_nothing_keep_nobody_out(served: str) -> None:
    with ExitStack() as held:
        for _ in range(3 * CONNECTIONS):
            connection = held.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(served)
            connection.sendall(QUESTION[:10])
        assert "asked" in ask(served)


def test_a_busy_agent_is_told_of_in_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.05)
    late: list[Asked] = []
    agent = ControlSocket(path)
    agent.start(late.append)
    assert "podwired is busy" in ask(path)["error"]
    [asked] = late
    threading.Event().wait(0.1)
    assert asked.is_late
    agent.close()


def test_only_its_owner_can_open_it(served: str, folder: Path) -> None:
    status = os.lstat(served)
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert [entry.name for entry in folder.iterdir()] == ["agent.sock"]
    before = os.umask(0)
    os.umask(before)
    assert before != 0o177, "the mask is as before"


def test_a_folder_is_made_for_it_alone(folder: Path) -> None:
    agent = ControlSocket(str(folder / "run" / "agent.sock"))
    assert stat.S_IMODE((folder / "run").stat().st_mode) == 0o700
    agent.close()
    assert list((folder / "run").iterdir()) == []


def test_a_socket_that_nobody_serves_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    before = os.lstat(path).st_ino
    agent = ControlSocket(path)
    assert os.lstat(path).st_ino != before
    agent.close()
    assert not os.path.lexists(path)


def test_a_socket_that_is_served_is_kept(served: str, caplog: pytest.LogCaptureFixture) -> None:
    assert open_control(served) == []
    assert f"questions are not answered at {served}: another process serves it" in caplog.text
    remove_left_over(served)
    assert "asked" in ask(served)


def test_one_whose_backlog_is_full_is_served_as_well(path: str) -> None:
    with ExitStack() as held:
        busy = held.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(path)
        busy.listen(0)
        for _ in range(3):
            waiting = held.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            waiting.connect_ex(path)
        with pytest.raises(OSError, match="another process serves it"):
            ControlSocket(path)


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "folder"])
def test_what_is_no_socket_is_kept(folder: Path, path: str, kind: str) -> None:
    target = folder / "target"
    if kind in ("file", "link"):
        target.write_text("theirs")
    if kind == "file":
        target.rename(path)
    elif kind == "folder":
        os.mkdir(path)
    else:
        os.symlink(target, path)
    before = os.lstat(path)
    with pytest.raises(OSError, match="is no socket of podwired"):
        ControlSocket(path)
    remove_left_over(path)
    assert os.path.samestat(os.lstat(path), before)
    if kind == "link":
        assert target.read_text() == "theirs"


def test_a_folder_to_which_others_may_write_is_no_place_for_it(folder: Path, path: str) -> None:
    folder.chmod(0o777)
    with pytest.raises(OSError, match="others may write"):
        ControlSocket(path)


def test_a_path_that_is_too_long_is_told_and_leaves_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert open_control(str(folder / ("x" * 200))) == []
    assert "too long" in caplog.text
    assert list(folder.iterdir()) == []


def test_a_path_that_is_another_agents_by_now_is_left_to_it(path: str) -> None:
    first = ControlSocket(path)
    os.unlink(path)
    second = ControlSocket(path)
    first.close()
    assert os.path.lexists(path)
    second.close()
    assert not os.path.lexists(path)


def test_what_is_left_over_is_removed(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    remove_left_over(path)
    assert not os.path.lexists(path)
    remove_left_over(path)
