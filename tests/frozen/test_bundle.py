"""The bundle starts wherever a runtime starts it, and programs that it executes inherit nothing of it."""

from __future__ import annotations

import json
import marshal
import os
import struct
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import VERSION as PODWIRE
from tests.frozen.calls import as_root

if TYPE_CHECKING:
    from collections.abc import Mapping

SHELL = Path("/bin/sh")
VERSION = {"CNI_COMMAND": "VERSION"}
LIBPYTHON = [f"libpython3.{minor}.so.1.0" for minor in range(11, 20)]
STALE = {
    "_PYI_ARCHIVE_FILE": "/opt/other/other",
    "_PYI_APPLICATION_HOME_DIR": "/opt/other/_internal",
    "_PYI_PARENT_PROCESS_LEVEL": "1",
    "_MEIPASS2": "/tmp/_MEIother",
}


def assert_answers(ended: subprocess.CompletedProcess[str]) -> None:
    """Asserts that the process printed VERSION's result, and nothing else."""
    assert (ended.stderr, ended.returncode) == ("", 0)
    answer = json.loads(ended.stdout)
    assert answer["cniVersion"] == "1.1.0"
    assert "1.1.0" in answer["supportedVersions"]


def call(
    program: Path, environment: Mapping[str, str], *arguments: str, data: str = "", name: str = ""
) -> subprocess.CompletedProcess[str]:
    """Executes a program with this environment and no other."""
    return subprocess.run(
        [name or str(program), *arguments],
        executable=program,
        env=environment,
        input=data,
        capture_output=True,
        text=True,
        check=False,
    )


def shell(script: str, program: Path, environment: Mapping[str, str] = VERSION) -> subprocess.CompletedProcess[str]:
    """Runs a script in which $0 is the program."""
    return call(SHELL, environment, "-c", f"set -eu; {script}", str(program))


def in_namespace(script: str, bundle: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script in a new mount namespace; the bundle is in /mnt."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs mount namespaces of a user namespace, which this machine does not allow")
    script = f'mount --bind "$0" /mnt; {script}'
    return call(Path("/usr/bin/env"), os.environ | VERSION, *namespace, "sh", "-euc", script, str(bundle))


def test_is_one_executable_beside_one_folder_and_the_agent_a_link_to_it(bundle: Path) -> None:
    assert sorted(os.listdir(bundle)) == ["NOTICES", "man", "podwire", "podwire.d", "podwired"]
    assert os.readlink(bundle / "podwired") == "podwire"


def test_the_agent_tells_its_version_and_its_flags(bundle: Path) -> None:
    for flag, output in (("--version", f"podwired {PODWIRE}\n"), ("--help", "usage: podwired [FLAG]...")):
        done = subprocess.run([bundle / "podwired", flag], env={}, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(output)
        assert done.stderr == ""
    wrong = subprocess.run([bundle / "podwired", "--ifaces=x"], env={}, capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "--ifaces: unknown flag" in wrong.stderr


def test_answers_in_an_empty_environment(bundle: Path) -> None:
    assert_answers(call(bundle / "podwire", VERSION))
    about = call(bundle / "podwire", {})
    assert (about.stdout, about.returncode) == ("", 0)
    assert "podwire" in about.stderr


@pytest.mark.parametrize("locale", ["", "C", "de_DE.ISO-8859-1", "no such locale"])
def test_answers_whatever_python_and_the_loader_are_told(bundle: Path, tmp_path: Path, locale: str) -> None:
    for name in ("encodings.py", "_json.py", "cni.py", "libexpat.so.1", *LIBPYTHON):
        (tmp_path / name).write_text("neither Python nor a library")
    variables = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONIOENCODING", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
    hostile = dict.fromkeys(variables, str(tmp_path)) | {"LANG": locale, "LC_ALL": locale}
    assert_answers(call(bundle / "podwire", VERSION | hostile))


def test_answers_when_the_caller_is_a_pyinstaller_program(bundle: Path) -> None:
    assert_answers(call(bundle / "podwire", VERSION | STALE))
    assert_answers(call(bundle / "podwire", VERSION | STALE | {"_PYI_ARCHIVE_FILE": str(bundle / "podwire")}))


def test_is_called_by_the_name_of_the_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "hop").symlink_to(os.path.relpath(bundle / "podwire", tmp_path))
    (tmp_path / "host-local").symlink_to("hop")
    assert "host-local" in call(tmp_path / "host-local", {}).stderr


def test_finds_itself_whatever_it_is_called(bundle: Path) -> None:
    ended = call(bundle / "podwire", {}, name="/nowhere/ptp")
    assert "ptp" in ended.stderr
    assert ended.returncode == 0


def test_answers_in_a_deleted_working_directory(bundle: Path, tmp_path: Path) -> None:
    assert_answers(shell(f'cd {tmp_path}; mkdir gone; cd gone; rmdir ../gone; exec "$0"', bundle / "podwire"))


def test_answers_with_closed_stdin_and_stderr(bundle: Path) -> None:
    assert_answers(shell('exec "$0" <&- 2>&-', bundle / "podwire"))


def test_fails_with_closed_stdout(bundle: Path) -> None:
    for streams in (">&-", "<&- >&-"):
        ended = shell(f'exec "$0" {streams}', bundle / "podwire")
        assert (ended.stdout, ended.stderr, ended.returncode) == ("", "", 1)


def test_answers_from_a_read_only_file_system(bundle: Path) -> None:
    assert_answers(in_namespace("mount -o remount,bind,ro /mnt; exec /mnt/podwire", bundle))


@pytest.mark.parametrize("options", ["noexec", "ro"])
def test_needs_no_temporary_folder(bundle: Path, options: str) -> None:
    assert_answers(in_namespace(f"mount -t tmpfs -o {options} none /tmp; exec /mnt/podwire", bundle))


@pytest.mark.parametrize("path", [None, "/opt/lib:/srv/lib"])
def test_executed_programs_inherit_what_podwire_was_given(bundle: Path, tmp_path: Path, path: str | None) -> None:
    spy = tmp_path / "spy"
    spy.write_text(f"#!/bin/sh\nexport -p >{tmp_path}/environment\n")
    spy.chmod(0o755)
    given = {"CNI_COMMAND": "STATUS", "CNI_PATH": str(tmp_path)} | STALE
    if path is not None:
        given["LD_LIBRARY_PATH"] = path
    network = {"cniVersion": "1.1.0", "name": "net", "type": "podwire", "ipam": {"type": "spy"}}
    ended = as_root(partial(call, bundle / "podwire", given, data=json.dumps(network)))
    assert (ended.stderr, ended.returncode) == ("", 0)
    inherited = (tmp_path / "environment").read_text()
    assert "_PYI_" not in inherited
    assert "LD_LIBRARY_PATH_ORIG" not in inherited
    assert (f"LD_LIBRARY_PATH='{path}'" in inherited) == (path is not None)
    assert "podwire.d" not in inherited


def test_holds_the_modules_that_no_plugin_loads(bundle: Path) -> None:
    data = (bundle / "podwire.d/podwire.code").read_bytes()
    offset, size = struct.unpack("<II", data[:8])
    hot, extensions, _, (offset, size) = marshal.loads(data[offset : offset + size])
    rest = marshal.loads(data[offset : offset + size])
    assert {"cni.main", "ipam.store"} <= hot.keys()
    assert {"_json"} <= extensions.keys()
    assert {"encodings.idna", "json", "logging", "subprocess", "traceback"} <= rest.keys()
