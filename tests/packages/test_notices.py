"""The licences of third-party software in the bundle (NOTICES), and the list of it (SBOM) beside the archive."""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni import VERSION
from hack.bundle import materials

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
RULE = f"\n{materials.RULE}\n"
HEAD = re.compile(r"(\S+) (\S*) \(([^)]+)\): (.*)")
OWN = {"cni", "ipam"}


def sections(notices: str) -> dict[str, str]:
    """Returns the licence for each thing that the bundle has, by its name in NOTICES."""
    licences = {}
    for section in notices.split(RULE)[1:]:
        heads, _, licence = section.partition("\n\n")
        for head in filter(None, map(HEAD.fullmatch, heads.splitlines())):
            licences.update(dict.fromkeys(head[4].split(", "), licence))
    return licences


@pytest.fixture
def notices(bundle: Path) -> str:
    return (bundle / "NOTICES").read_text()


@pytest.fixture
def licences(notices: str) -> dict[str, str]:
    if not shutil.which("dpkg-query"):
        pytest.skip("no dpkg: licences of shared libraries are those of Debian packages")
    return sections(notices)


def third_party_modules(bundle: Path) -> set[str]:
    """Returns the names of modules in podwire.code that are neither podwire's nor the standard library's."""
    data = (bundle / "podwire.d/podwire.code").read_bytes()

    def read(place: tuple[int, int]) -> Any:
        return marshal.loads(data[place[0] : place[0] + place[1]])

    hot, _, _, rest = read((int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")))
    names = {name.partition(".")[0] for name in [*hot, *read(rest)]}
    return names - OWN - set(sys.stdlib_module_names)


def test_every_shared_library_has_its_licence(bundle: Path, licences: dict[str, str]) -> None:
    files = [path for path in bundle.rglob("*") if not path.is_symlink() and path.is_file()]
    compiled = {path.relative_to(bundle).as_posix() for path in files if path.read_bytes().startswith(b"\x7fELF")}
    assert {"podwire", "podwire.d/libcrypto.so.3"} <= compiled
    assert sorted(name for name in compiled if len(licences.get(name, "")) < 500) == []


def test_every_python_package_has_its_licence(bundle: Path, licences: dict[str, str]) -> None:
    modules = third_party_modules(bundle)
    assert {"click", "urllib3", "yaml", "prometheus_client", "jeepney"} <= modules
    assert sorted(name for name in modules if len(licences.get(f"module {name}", "")) < 500) == []
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in licences["the standard library of Python"]


def test_a_licence_that_a_notice_refers_to_is_there(notices: str, licences: dict[str, str]) -> None:
    assert licences
    referred = set(materials.REFERRED.findall("".join(licences.values())))
    assert "GPL-2" in referred
    assert sorted(name for name in referred if f"{RULE}/usr/share/common-licenses/{name}\n\n" not in notices) == []


def test_what_has_no_licence_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    contents, packages, target = (tmp_path / name for name in ("contents", "packages", "NOTICES"))
    contents.write_text(json.dumps([["podwire.d/libown.so.1", str(tmp_path / "libown.so.1")]]))
    monkeypatch.setattr(sys, "argv", ["materials", *map(str, (contents, packages, target))])
    said: list[str] = []
    monkeypatch.setattr(sys, "stderr", type("Stream", (), {"write": lambda _, text: said.append(text)})())
    assert materials.main() == 0
    assert "no licence of libown.so.1" in said[0]
    assert f"libown.so.1 unknown ({materials.OTHER}): podwire.d/libown.so.1" in target.read_text()


def test_an_interpreter_that_no_package_has_is_one_with_its_library(tmp_path: Path) -> None:
    library = Path(os.path.realpath(sysconfig.get_path("stdlib")))
    own = [tmp_path / "libpython3.11.so.1.0", library / "no-such-module.py"]
    (part,) = materials.parts(json.dumps([["podwire", str(own[0])], [materials.LIBRARY, str(own[1])]]))
    assert (part.name, part.version, part.kind) == ("CPython", platform.python_version(), materials.OTHER)
    assert part.holds == ("podwire", materials.LIBRARY)


@pytest.fixture(params=["C", "en_US.ISO-8859-1"])
def locale(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Returns the variables of a locale that has another encoding than UTF-8."""
    name = request.param
    if name != "C":
        if not shutil.which("localedef"):
            pytest.skip("not installed: localedef")
        command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(tmp_path / name)]
        if made := subprocess.run(command, capture_output=True, text=True, check=False).stderr:
            pytest.skip(f"localedef makes no locale (package locales): {made.strip()}")
    return {"LC_ALL": name, "LOCPATH": str(tmp_path), "PYTHONUTF8": "0"}


def test_notices_are_written_in_utf8_in_every_locale(locale: dict[str, str], tmp_path: Path) -> None:
    contents, packages, target = (tmp_path / name for name in ("contents", "packages", "NOTICES"))
    contents.write_text(json.dumps([["podwire.d/libmünchen.so.1", "/nowhere/libown.so.1"]]))
    command = [sys.executable, "-m", "hack.bundle.materials", *map(str, (contents, packages, target))]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **locale}, check=True)
    assert f"({materials.OTHER}): podwire.d/libmünchen.so.1\n".encode() in target.read_bytes()


def test_the_owner_of_a_file_is_asked_in_the_words_of_no_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A diversion, which is no owner, is called by another word in each language."""
    asked = tmp_path / "dpkg-query"
    asked.write_text('#!/bin/sh\necho "package-$LC_ALL-${LANGUAGE-}: /usr/lib/libown.so.1"\n')
    asked.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.delenv("LANGUAGE", raising=False)
    assert materials.debian_owners({"/usr/lib/libown.so.1"})["/usr/lib/libown.so.1"] == "package-C-"


def build() -> Path:
    built = subprocess.run([ROOT / "hack/build"], capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip("hack/build made no bundle; its message says what is missing")
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def archive() -> Path:
    return build()


@pytest.fixture(scope="session")
def sbom(archive: Path) -> str:
    return archive.with_suffix(".cdx.json").read_text()


def test_the_list_is_valid(sbom: str) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="pip install cyclonedx-python-lib")
    schema = pytest.importorskip("cyclonedx.schema", reason="pip install cyclonedx-python-lib")
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(sbom) is None


def test_the_list_has_the_packages_of_the_notices(sbom: str, archive: Path) -> None:
    listed = json.loads(sbom)
    notices = subprocess.run(["tar", "-xzOf", archive, "NOTICES"], capture_output=True, text=True, check=True).stdout
    noticed = {
        (head[1], head[2])
        for section in notices.split(RULE)
        for line in section.partition("\n\n")[0].splitlines()
        if (head := HEAD.fullmatch(line))
    }
    assert {(part["name"], part["version"]) for part in listed["components"]} == noticed
    held = {entry["value"] for part in listed["components"] for entry in part["properties"]}
    assert {"podwire", "podwire.d/libssl.so.3", "module urllib3", "the standard library of Python"} <= held
    assert all(part["purl"].startswith(("pkg:deb/", "pkg:pypi/", "pkg:generic/")) for part in listed["components"])


def test_the_list_is_that_of_the_archive(sbom: str, archive: Path) -> None:
    component = json.loads(sbom)["metadata"]["component"]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (component["name"], component["version"]) == ("podwire", VERSION)
    assert component["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_the_same_packages_make_the_same_notices_and_list(archive: Path, sbom: str, tmp_path: Path) -> None:
    """Neither has a time, a random number, or the order of a set."""
    pytest.importorskip("cyclonedx", reason="pip install cyclonedx-python-lib")
    contents = ROOT / "build/bundle/work/podwire/contents.json"
    packages, copy = tmp_path / "packages.json", Path(shutil.copy(archive, tmp_path))
    environment: Mapping[str, str] = {**os.environ, "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "7"}

    def module(name: str, *arguments: Path) -> None:
        subprocess.run([sys.executable, "-m", f"hack.bundle.{name}", *arguments], cwd=ROOT, env=environment, check=True)

    before = json.loads((contents.parent / "packages.json").read_text())
    module("materials", contents, packages, tmp_path / "NOTICES")
    again = [part for part in json.loads(packages.read_text()) if part["kind"] == materials.DEBIAN]
    assert again == [part for part in before if part["kind"] == materials.DEBIAN]
    module("sbom", contents.parent / "packages.json", copy)
    assert copy.with_suffix(".cdx.json").read_text() == sbom
