"""The wheel and the source archive: complete, the same from either, and what pip installs runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from cni import VERSION

ROOT = Path(__file__).parents[2]
EPOCH = {"SOURCE_DATE_EPOCH": "315532800"}
TRACKED = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
pytestmark = pytest.mark.xdist_group("distributions")  # which are built once


def run(*command: str | Path, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def build(source: Path, *kinds: str) -> Path:
    """Builds distributions of a source tree by the backend that pyproject.toml names, and returns their folder."""
    built = run(
        sys.executable, "-m", "hatchling", "build", *[word for kind in kinds for word in ("-t", kind)],
        folder=source, **EPOCH,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return source / "dist"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of the source tree, without the files that git ignores."""
    listed = run(*TRACKED, folder=ROOT) if shutil.which("git") else None
    if not listed or listed.returncode:
        pytest.skip("git does not list the files of this tree")
    folder = tmp_path_factory.mktemp("source")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():  # else it has been removed, and the commit is to come
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def distributions(source: Path) -> Path:
    pytest.importorskip("hatchling", reason="not installed: hatchling (hack/test brings it)")
    return build(source, "sdist", "wheel")


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="session")
def wheel(distributions: Path) -> dict[str, bytes]:
    (path,) = distributions.glob("*.whl")
    return members(path)


@pytest.fixture(scope="session")
def unpacked(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder in the source archive."""
    folder = tmp_path_factory.mktemp("sdist")
    archive = distributions / f"podwire-{VERSION}.tar.gz"
    subprocess.run(["tar", "--no-same-owner", "-xzf", archive, "-C", folder], check=True)  # tarfile looks up each owner
    return folder / f"podwire-{VERSION}"


def files(folder: Path) -> set[str]:
    built = folder / "dist"
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.parent != built
    }


def test_the_source_archive_is_the_whole_tree(source: Path, unpacked: Path) -> None:
    assert files(unpacked) - {"PKG-INFO"} == files(source)
    executables = [name for name in files(source) if os.access(source / name, os.X_OK)]
    assert "hack/build" in executables
    assert [name for name in executables if not os.access(unpacked / name, os.X_OK)] == []


def test_the_source_archive_makes_the_same_wheel(wheel: dict[str, bytes], unpacked: Path) -> None:
    (again,) = build(unpacked, "wheel").glob("*.whl")
    assert members(again) == wheel


def test_the_wheel_has_all_modules_and_nothing_else(wheel: dict[str, bytes], source: Path) -> None:
    modules = {name for name in files(source) if name.startswith(("cni/", "ipam/")) and name.endswith(".py")}
    assert {name for name in wheel if ".dist-info/" not in name} == modules


def test_the_metadata_names_what_is_needed(wheel: dict[str, bytes]) -> None:
    folder = f"podwire-{VERSION}.dist-info"
    metadata = message_from_bytes(wheel[f"{folder}/METADATA"])
    assert (metadata["Name"], metadata["Version"], metadata["Author"]) == ("podwire", VERSION, "podwire authors")
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(metadata.get_all("Requires-Dist", [])) == sorted(map(str.lower, project["dependencies"]))
    for name in metadata.get_all("License-File", []):
        assert wheel[f"{folder}/licenses/{name}"] == (ROOT / name).read_bytes()
    assert metadata.get_all("License-File") == ["LICENSE"]
    (programs,) = [name for name in wheel if name.endswith("/entry_points.txt")]
    assert re.findall(rb"^(\S+) =", wheel[programs], re.MULTILINE) == [b"podwire", b"podwired"]  # no common name
    assert "cni" in metadata["Keywords"].split(",")
    assert "Topic :: System :: Networking" in metadata.get_all("Classifier", [])


@pytest.fixture(scope="session")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of programs of a new virtual environment after `pip install` of the tree."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = (sys.executable, "-m", "pip", "--python", venv / "bin/python", "--disable-pip-version-check")
    done = run(*pip, "install", "--retries=1", source, PIP_CONSTRAINT=str(ROOT / "hack/constraints.txt"))
    if done.returncode and run(*pip, "download", "--retries=1", "--no-deps", "--dest", venv, "hatchling").returncode:
        pytest.skip(f"no network: pip cannot download packages: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return venv / "bin"


def test_pip_installs_the_programs(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "podwired", "--version", folder=tmp_path).stdout == f"podwired {VERSION}\n"
    assert run(installed / "podwire", "version", folder=tmp_path).stdout == f"podwire {VERSION}\n"
    assert '"1.1.0"' in run(installed / "podwire", folder=tmp_path, CNI_COMMAND="VERSION").stdout


def test_pip_installs_the_packages_of_the_agent_and_the_command_line(installed: Path, tmp_path: Path) -> None:
    helped = run(installed / "podwire", "policy", "why", "--help", folder=tmp_path)
    assert (helped.returncode, helped.stderr) == (0, "")
    modules = "import cni.agent.metrics, cni.agent.stores.etcd.client, cni.agent.stores.kube.config, jeepney, yaml"
    imported = run(installed / "python", "-c", modules, folder=tmp_path)
    assert (imported.returncode, imported.stderr) == (0, "")


def test_the_module_is_the_plugin(installed: Path, tmp_path: Path) -> None:
    called = run(installed / "python", "-m", "cni", folder=tmp_path, CNI_COMMAND="VERSION")
    assert '"1.1.0"' in called.stdout
