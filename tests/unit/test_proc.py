"""Execution of other programs: their search, environment and result."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni import proc

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_subprocess import FakeProcess


def program(folder: Path, name: str, mode: int = 0o755) -> str:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(mode)
    return str(file)


def test_a_program_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    program(second, "ipam")
    path = f":{tmp_path}/none:{first}:{second}"
    assert proc.find("ipam", path) == f"{second}/ipam"
    program(first, "ipam")
    assert proc.find("ipam", path) == f"{first}/ipam"


def test_a_link_to_a_program_is_a_program(tmp_path: Path) -> None:
    (tmp_path / "bridge").symlink_to(program(tmp_path, "podwire"))
    assert proc.find("bridge", str(tmp_path)) == f"{tmp_path}/bridge"


def test_what_cannot_be_executed_is_no_program(tmp_path: Path) -> None:
    program(tmp_path, "text", 0o644)
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    assert [proc.find(name, str(tmp_path)) for name in ("text", "folder", "dangling", ".", "..", "absent")] == [
        None
    ] * 6


def test_the_current_folder_is_never_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program(tmp_path, "ipam")
    assert proc.find("ipam", "") is None
    assert proc.find("ipam", "::") is None


def test_a_program_of_the_system_is_found_without_path(tmp_path: Path) -> None:
    own = program(tmp_path, "sh")
    assert proc.find_system("sh", {"PATH": str(tmp_path)}) == own
    shell = proc.find_system("sh", {})
    assert shell
    assert os.path.dirname(shell) in proc.SYSTEM_PATH.split(":")


def test_a_program_is_told_and_tells(fp: FakeProcess) -> None:
    heard: list[bytes] = []
    recorder = fp.register(["/bin/x", "-a"], stdout=b"out", stderr=b"err", returncode=3, stdin_callable=heard.append)
    assert proc.run(["/bin/x", "-a"], b"in", {"A": "b"}, capture_stderr=True) == proc.CompletedProcess(
        3, b"out", b"err"
    )
    assert heard == [b"in"]
    (call,) = recorder.calls
    assert call.kwargs
    assert call.kwargs["env"] == {"A": "b"}


def test_the_stderr_of_a_program_is_ours_unless_it_is_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\ncat\necho words >&2\nexit 7\n")
    script.chmod(0o755)
    ended = proc.run([str(script)], b"in", {"PATH": proc.SYSTEM_PATH}, capture_stderr=False)
    assert ended == proc.CompletedProcess(7, b"in", b"")
    assert capfd.readouterr().err == "words\n"
    assert proc.run([str(script)], b"", {"PATH": proc.SYSTEM_PATH}, capture_stderr=True).stderr == b"words\n"


def test_a_program_that_a_signal_ends_has_a_negative_status() -> None:
    ended = proc.run(["/bin/sh", "-c", "kill -9 $$"], b"", {}, capture_stderr=True)
    assert ended.status == -9


def test_a_program_that_cannot_start_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        proc.run([str(tmp_path / "absent")], b"", {}, capture_stderr=True)


LEADING_OUT = ["../evil", "/evil", "a/../../evil", "./evil", "evil/", "", ".", "..", "..\\evil", "evil\0"]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_name_that_leads_out_of_the_path_is_not_searched_for(tmp_path: Path, name: str) -> None:
    program(tmp_path, "evil")
    program(tmp_path, "..\\evil")
    (tmp_path / "bin" / "a").mkdir(parents=True)
    program(tmp_path / "bin", "evil")
    assert proc.find(name, f"{tmp_path}/bin:{tmp_path}") is None
