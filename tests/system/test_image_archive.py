"""The image of hack/image: an archive that runtimes import, a root file system in which its programs run."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni import VERSION
from hack.bundle import materials
from hack.oci import image, tree
from tests.machine import Machine, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.plugins import Json

pytestmark = pytest.mark.xdist_group("image")  # which is made once for all
ROOT = Path(__file__).resolve().parents[2]
IMAGE = ROOT / "hack/image"
NAME = f"docker.io/library/podwire:{VERSION}"
SOCKET = "/run/containerd-test.sock"
CONFIG = f"""
version = 2
root = "/run/containerd-test/root"
state = "/run/containerd-test/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{SOCKET}"
"""


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IMAGE, *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a copy of the archive."""
    folder = tmp_path_factory.mktemp("image")
    done = make(folder)
    if done.returncode:
        pytest.skip(f"hack/image made no image: {done.stderr.strip().splitlines()[-1]}")
    made = Path(done.stdout.strip())
    shutil.copy(made.with_suffix(".cdx.json"), folder)
    return Path(shutil.copy(made, folder))


@pytest.fixture(scope="session")
def blobs(archive: Path) -> dict[str, bytes]:
    """Returns all files of the archive."""
    with tarfile.open(archive) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member))}


def blob(blobs: dict[str, bytes], entry: Json) -> bytes:
    """Returns the blob of a descriptor, and asserts its size and digest."""
    kind, _, digest = entry["digest"].partition(":")
    data = blobs[f"blobs/{kind}/{digest}"]
    assert (len(data), hashlib.new(kind, data).hexdigest()) == (entry["size"], digest)
    return data


def parts(blobs: dict[str, bytes]) -> tuple[Json, Json]:
    """Returns the manifest and the configuration of the one image."""
    (entry,) = json.loads(blobs["index.json"])["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == NAME
    manifest = json.loads(blob(blobs, entry))
    return manifest, json.loads(blob(blobs, manifest["config"]))


@pytest.fixture
def root(machine: Machine, blobs: dict[str, bytes]) -> Iterator[str]:
    """Returns the image's root file system in the machine."""
    manifest, _ = parts(blobs)
    machine.run("mkdir", "/run/image")
    for entry in manifest["layers"]:
        name = entry["digest"].partition(":")[2]
        path = Path(f"{machine.root}/run/{name}")
        path.write_bytes(blob(blobs, entry))
        machine.run("tar", "-xzf", f"/run/{name}", "-C", "/run/image")
    machine.run("mount", "-t", "proc", "proc", "/run/image/proc")
    yield "/run/image"
    machine.run("umount", "/run/image/proc")


def run_in(machine: Machine, root: str, *command: str, stdin: str = "", **environment: str) -> str:
    """Runs a program of the image, with only the kernel of this machine."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    return machine.run("env", "-i", *variables, "/usr/sbin/chroot", root, *command, stdin=stdin).stdout


def test_the_archive_is_a_whole_image(blobs: dict[str, bytes]) -> None:
    manifest, config = parts(blobs)
    layers = [gzip.decompress(blob(blobs, entry)) for entry in manifest["layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]
    assert config["config"]["Entrypoint"] == ["/opt/podwire/podwired"]
    assert (config["os"], json.loads(blobs["oci-layout"])) == ("linux", {"imageLayoutVersion": "1.0.0"})


def test_the_image_says_what_it_is_and_of_which_commit(blobs: dict[str, bytes]) -> None:
    manifest, config = parts(blobs)
    labels = config["config"]["Labels"]
    assert manifest["annotations"] == labels
    assert {key.removeprefix("org.opencontainers.image.") for key in labels} >= {
        "title", "description", "version", "authors",
    }  # fmt: skip
    assert "org.opencontainers.image.licenses" not in labels  # the packages in it have their own
    assert labels["org.opencontainers.image.version"] == VERSION
    asked = git(ROOT, "rev-parse", "--show-toplevel")
    if asked.returncode or asked.stdout.strip() != str(ROOT):
        assert "org.opencontainers.image.revision" not in labels
        return
    revision, seconds = git(ROOT, "show", "--no-patch", "--format=%H %ct", "HEAD").stdout.split()
    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == revision
    assert datetime.fromisoformat(config["created"]).timestamp() == int(seconds)
    assert labels["org.opencontainers.image.created"] == config["created"] == config["history"][0]["created"]


def test_docker_finds_the_same_blobs(blobs: dict[str, bytes]) -> None:
    manifest, _ = parts(blobs)
    (docker_manifest,) = json.loads(blobs["manifest.json"])
    paths = [f"blobs/{entry['digest'].replace(':', '/')}" for entry in (manifest["config"], *manifest["layers"])]
    assert docker_manifest == {"Config": paths[0], "Layers": paths[1:], "RepoTags": [NAME]}


def test_the_same_bundle_and_packages_make_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        again = make(tmp_path)
    finally:
        os.umask(before)
    assert Path(again.stdout.strip()).read_bytes() == archive.read_bytes()
    assert f"{NAME}, " in again.stderr


def test_every_program_runs_on_what_is_in_the_image(machine: Machine, root: str) -> None:
    assert run_in(machine, root, "/opt/podwire/podwired", "--version") == f"podwired {VERSION}\n"
    assert "1.1.0" in run_in(machine, root, "/opt/podwire/podwire", CNI_COMMAND="VERSION")
    run_in(machine, root, "/usr/bin/sleep", "0")


def test_plugins_are_installed_from_the_image(machine: Machine, root: str) -> None:
    run_in(machine, root, "/opt/podwire/podwire", "install", "--bin-dir=/opt/cni/bin")
    plugin = f"{root}/opt/cni/bin/flannel"
    assert "1.1.0" in machine.run(plugin, env={"CNI_COMMAND": "VERSION"}).stdout


def test_the_image_has_no_shell_and_the_licences_of_what_it_has(machine: Machine, root: str) -> None:
    assert machine.run("ls", f"{root}/bin/").stdout.split() == ["sleep"]
    assert machine.run("test", "-e", f"{root}/sbin", check=False).returncode
    known = machine.run("ls", f"{root}/var/lib/dpkg/status.d").stdout.split()
    assert {"coreutils", "libc6"} <= set(known)
    assert "nftables" not in known
    for package in known:
        copyright_file = machine.run("cat", f"{root}/usr/share/doc/{package}/copyright").stdout
        for common in re.findall(r"/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]", copyright_file):
            assert machine.run("test", "-s", f"{root}{common}", check=False).returncode == 0, common
    assert machine.run("test", "-e", f"{root}/opt/podwire/man", check=False).returncode == 1  # nobody reads it there
    assert f"podwire {VERSION}" in machine.run("head", "-n1", f"{root}/opt/podwire/NOTICES").stdout


def test_containerd_has_it_under_the_name_that_kubelet_asks_for(archive: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: containerd")
    if absent := [name for name in ("containerd", "ctr") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(absent)} (hack/peers brings them)")
    with Machine(user_namespace=False) as machine:
        machine.run("cp", "/dev/stdin", "/run/containerd.toml", stdin=CONFIG)
        log = tmp_path / "containerd.log"
        machine.start("sh", "-c", f"exec containerd --config /run/containerd.toml >{log} 2>&1")
        ctr = ("ctr", "--address", SOCKET, "--namespace", "k8s.io")
        until(lambda: not machine.run(*ctr, "version", check=False).returncode, "containerd answers")
        machine.run(*ctr, "images", "import", "--snapshotter", "native", str(archive))
        assert machine.run(*ctr, "images", "list", "--quiet").stdout.split() == [NAME]
        checked = machine.run(*ctr, "images", "check", "--snapshotter", "native").stdout
        assert "complete" in checked.splitlines()[1]


def test_docker_loads_and_runs_it(archive: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: dockerd")
    if absent := [name for name in ("containerd", "docker", "dockerd", "runc") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(absent)}")
    group = f"podwire-{os.getpid()}"
    with Machine(user_namespace=False) as machine:
        log = tmp_path / "dockerd.log"
        folders = f"--data-root {tmp_path}/docker --exec-root /run/docker --pidfile /run/docker.pid"
        network = "--bridge=none --iptables=false --ip6tables=false --ip-forward=false"
        options = f"{folders} {network} --storage-driver vfs --cgroup-parent {group} --host unix:///run/docker.sock"
        machine.start("sh", "-c", f"exec dockerd {options} >{log} 2>&1")
        docker = ("docker", "--host", "unix:///run/docker.sock")
        until(lambda: not machine.run(*docker, "version", check=False).returncode, "dockerd answers")
        assert NAME.removeprefix("docker.io/library/") in machine.run(*docker, "load", "--input", str(archive)).stdout
        run = (*docker, "run", "--rm", "--network", "none")
        assert machine.run(*run, NAME, "--version").stdout == f"podwired {VERSION}\n"
    for folder in sorted(Path("/sys/fs/cgroup").glob(f"**/{group}/**/"), reverse=True):
        folder.rmdir()


@pytest.mark.skipif(not shutil.which("git"), reason="not installed: git")
@pytest.mark.parametrize(("place", "labelled"), [(".", True), ("podwire-1.2", False)])
def test_a_commit_of_another_repository_is_not_that_of_the_image(tmp_path: Path, place: str, labelled: bool) -> None:
    """A source archive may be unpacked below any repository."""
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("of the tree")
    identity = ("-c", "user.name=user", "-c", "user.email=user@podwire.invalid", "-c", "commit.gpgsign=false")
    for arguments in (("init",), ("add", "."), (*identity, "commit", "-m", "first")):
        assert git(tmp_path, *arguments).returncode == 0
    seconds, revision = image.commit(folder)
    assert (bool(revision), seconds != image.BORN) == (labelled, labelled)


def test_the_list_of_materials_has_the_packages_of_bundle_and_image(archive: Path, blobs: dict[str, bytes]) -> None:
    if not shutil.which("dpkg-query"):
        pytest.skip("no dpkg: licences of shared libraries are those of Debian packages")
    validation = pytest.importorskip("cyclonedx.validation.json", reason="pip install cyclonedx-python-lib")
    schema = pytest.importorskip("cyclonedx.schema", reason="pip install cyclonedx-python-lib")
    text = archive.with_suffix(".cdx.json").read_text()
    assert validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(text) is None
    listed = json.loads(text)
    held = {entry["value"] for part in listed["components"] for entry in part["properties"]}
    layer = gzip.decompress(blob(blobs, parts(blobs)[0]["layers"][0]))
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        compiled = {member.name for member in tar if (file := tar.extractfile(member)) and file.read(4) == b"\x7fELF"}
        packages = {name.rpartition("/")[2] for name in tar.getnames() if "/status.d/" in name}
    assert {"usr/bin/sleep", *compiled, "podwire", "podwire.d/libssl.so.3", "module urllib3"} <= held
    assert packages < {part["name"] for part in listed["components"]}
    component = listed["metadata"]["component"]
    assert (component["type"], component.get("licenses")) == ("container", None)  # the packages have their own
    assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(archive.read_bytes()).hexdigest()}]


def test_a_library_for_another_processor_is_not_that_of_the_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine may have libraries of several, and ldconfig lists all of them by the same names."""
    listed = []
    for folder, machine in (("other", b"\x03\x00"), ("own", b"\x3e\x00")):
        library = tmp_path / folder / "libc.so.6"
        library.parent.mkdir()
        library.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + machine)
        listed.append(f"\tlibc.so.6 (libc6) => {library}")
    monkeypatch.setattr(tree, "run", lambda *_: "\n".join(["2 libs found in cache", *listed]))
    assert tree.known_libraries(b"\x02\x01\x3e\x00") == {"libc.so.6": str(tmp_path / "own/libc.so.6")}


def test_a_package_of_bundle_and_image_is_listed_once() -> None:
    own, others = (materials.Part("libx", "1", materials.DEBIAN, (file,), "licence") for file in ("b", "a"))
    assert materials.merged([own, others]) == [own._replace(holds=("a", "b"))]


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("podwire", "docker.io/library/podwire:1.2"),
        ("podwire:test", "docker.io/library/podwire:test"),
        ("net/podwire", "docker.io/net/podwire:1.2"),
        ("localhost/podwire", "localhost/podwire:1.2"),
        ("registry.example/net/podwire", "registry.example/net/podwire:1.2"),
        ("registry:5000/podwire", "registry:5000/podwire:1.2"),
        ("registry:5000/podwire:test", "registry:5000/podwire:test"),
    ],
)
def test_a_name_is_completed_as_kubelet_does(given: str, full: str) -> None:
    assert image.full_name(given, "1.2") == full


def test_what_cannot_be_a_name_is_refused(tmp_path: Path) -> None:
    for name in ("Podwire", "pod wire", "podwire:", ""):
        refused = make(tmp_path, "--name", name)
        assert refused.returncode == 2
        assert "--name: " in refused.stderr
    assert "usage: hack/image" in make(tmp_path, "--help").stdout
