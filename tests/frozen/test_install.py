"""`podwire install`: an upgrade in one step, and no file lost that podwire has not installed."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING

from cni.diag.install import NAMES
from tests.frozen.test_bundle import VERSION, assert_answers, call

if TYPE_CHECKING:
    from pathlib import Path

FOREIGN = "#!/bin/sh\necho another\n"


def install(bundle: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return call(bundle / "podwire", {}, "install", "--bin-dir", str(folder), *options)


def whole(folder: Path) -> dict[str, str]:
    """Returns the links of a folder with their targets, and its files with their texts."""
    return {
        path.name: str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in folder.iterdir()
        if not path.is_dir()
    }


def test_every_name_answers(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "bin"
    done = install(bundle, folder)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("podwire", *NAMES):
        assert f"{folder}/{name} -> " in done.stdout
        assert_answers(call(folder / name, VERSION))


def test_the_licences_are_installed_with_the_programs(bundle: Path, tmp_path: Path) -> None:
    folder, unpacked = tmp_path / "bin", tmp_path / "unpacked"
    assert install(bundle, folder).returncode == 0
    installed = (folder / "podwire").resolve()
    assert (installed.parent / "NOTICES").read_bytes() == (bundle / "NOTICES").read_bytes()
    assert sorted(os.listdir(installed.parent)) == ["NOTICES", "podwire", "podwire.d"]  # and no manual pages
    unpacked.mkdir()
    subprocess.run(["cp", "-a", bundle / "podwire", bundle / "podwire.d", unpacked], check=True)
    assert install(unpacked, folder).returncode == 0  # an archive without them
    assert sorted(os.listdir((folder / "podwire").resolve().parent)) == ["podwire", "podwire.d"]


def test_only_the_names_that_are_asked_for_are_linked(bundle: Path, tmp_path: Path) -> None:
    assert install(bundle, tmp_path, "--names", "loopback,host-local").returncode == 0
    assert set(whole(tmp_path)) == {"podwire", "loopback", "host-local"}
    assert install(bundle, tmp_path, "--names", "").returncode == 0


def test_a_file_not_installed_by_podwire_is_kept_and_reported(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bridge").write_text(FOREIGN)
    done = install(bundle, tmp_path)
    assert (tmp_path / "bridge").read_text() == FOREIGN
    assert f"{tmp_path}/bridge: not installed by podwire, kept" in done.stdout
    assert_answers(call(tmp_path / "ptp", VERSION))


def test_a_file_not_installed_by_podwire_that_is_listed_is_an_error_before_any_change(
    bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "bridge").write_text(FOREIGN)
    (tmp_path / "ptp").symlink_to("/usr/lib/cni/ptp")
    done = install(bundle, tmp_path, "--names", "bridge,ptp,loopback")
    assert done.returncode == 1
    assert f"{tmp_path}/bridge, {tmp_path}/ptp" in done.stderr
    assert whole(tmp_path) == {"bridge": FOREIGN, "ptp": "/usr/lib/cni/ptp"}
    assert install(bundle, tmp_path, "--names", "bridge,ptp,loopback", "--force").returncode == 0
    assert_answers(call(tmp_path / "bridge", VERSION))


def test_an_executable_podwire_not_installed_by_podwire_is_an_error(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "podwire").write_text(FOREIGN)
    assert install(bundle, tmp_path).returncode == 1
    assert whole(tmp_path) == {"podwire": FOREIGN}


def test_an_upgrade_is_never_seen_half_done(bundle: Path, tmp_path: Path) -> None:
    assert install(bundle, tmp_path).returncode == 0
    upgrading, failed = threading.Event(), []

    def runtime() -> None:
        while not upgrading.is_set():
            ended = call(tmp_path / "bridge", VERSION)
            if ended.returncode or "1.1.0" not in ended.stdout:
                failed.append(ended)

    thread = threading.Thread(target=runtime)
    thread.start()
    installed = tmp_path / "podwire"
    for _ in range(5):  # by what is installed itself, as an upgrade in place would
        assert install(installed.resolve().parent, tmp_path).returncode == 0
    upgrading.set()
    thread.join()
    assert failed == []
    assert len(list((tmp_path / ".podwire").iterdir())) == 2


def test_an_unpacked_archive_is_upgraded(bundle: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", bundle / "podwire", bundle / "podwire.d", tmp_path], check=True)
    assert install(bundle, tmp_path).returncode == 0
    assert_answers(call(tmp_path / "podwire", VERSION))
    assert (tmp_path / "podwire.d").exists()
    assert install(bundle, tmp_path).returncode == 0
    assert not (tmp_path / "podwire.d").exists()
    assert_answers(call(tmp_path / "podwire", VERSION))


def test_a_wrong_command_line_is_an_error_that_names_install(bundle: Path) -> None:
    program = bundle / "podwire"
    for arguments in (["unpack"], ["install"], ["install", "--bin-dir", "/x", "--names", "dhcp"]):
        done = call(program, {}, *arguments)
        assert done.returncode == 2
        assert "install" in done.stderr
    assert "usage: podwire install" in call(program, {}, "install", "--help").stdout
