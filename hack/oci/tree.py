"""The files of the image: the bundle, sleep, and the libraries that these need, as this machine has them."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hack.bundle import materials

if TYPE_CHECKING:
    from hack.bundle.materials import Part

HOME = "opt/podwire"
MANUAL = "man/"  # nobody reads it in a container
SLEEP = "usr/bin/sleep"  # for conf/kubernetes/cleanup.yaml, whose pods have to stay after the cleanup
LIBC = "libc.so.6"
LOADED = "libgcc_s.so.1"  # by the C library, where a thread ends
NEEDED = re.compile(r"Shared library: \[(.+)\]|program interpreter: (.+)\]")
KNOWN = re.compile(r"^\t(\S+) .* => (/.+)$", re.MULTILINE)
IN_USR = ("bin", "sbin", "lib", "lib64")
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")
NAME_SERVICE = b"hosts: files dns\n"


class File(NamedTuple):
    """A file of the image; a folder has neither `data` nor `target`, which is that of a symbolic link."""

    mode: int
    data: bytes | None = None
    target: str = ""


def bundle_of(archive: Path) -> dict[str, File]:
    """Returns the files of the bundle by their paths in the image."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive.read_bytes()))) as tar:
        for member in tar:
            if member.name.startswith(MANUAL):
                continue
            if member.issym():
                files[f"{HOME}/{member.name}"] = File(0o777, target=member.linkname)
            elif file := tar.extractfile(member):
                files[f"{HOME}/{member.name}"] = File(member.mode & 0o755, file.read())
    return files


def run(*command: str) -> str:
    return subprocess.run(
        command, env={**os.environ, "LC_ALL": "C"}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def needed(data: bytes) -> set[str]:
    """Returns the names of the libraries that a program or library needs, and the path of a program's loader."""
    if not data.startswith(b"\x7fELF"):
        return set()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return {name or loader for name, loader in NEEDED.findall(run("readelf", "-ldW", file.name))}


def machine_of(data: bytes) -> bytes:
    """Returns the fields of an ELF file that name the processor: class, byte order, machine."""
    return data[4:6] + data[18:20]


def known_libraries(machine: bytes) -> dict[str, str]:
    """Returns the paths of this machine's libraries for a processor by their names."""
    known: dict[str, str] = {}
    for name, path in KNOWN.findall(run("ldconfig", "-p")):
        if name not in known and machine_of(Path(path).read_bytes()[:20]) == machine:
            known[name] = path
    return known


def sources(bundle: dict[str, File]) -> dict[str, str]:
    """Returns the files of this machine that the bundle and sleep need, by their paths in the image.

    All libraries lie in the folder of the C library, where the loader looks without a cache.
    """
    sleep = os.path.realpath(shutil.which("sleep") or f"/{SLEEP}")
    program = Path(sleep).read_bytes()
    known = known_libraries(machine_of(program))
    own = {os.path.basename(path) for path in bundle if path.startswith(f"{HOME}/podwire.d/")}
    waiting = needed(program) | {LOADED}
    for path, file in bundle.items():
        waiting |= needed(file.data or b"") - (own if os.path.basename(path) in own else set())
    loaders = {name for name in waiting if name.startswith("/")}
    chosen = {loader: loader for loader in loaders}
    seen = {os.path.basename(loader) for loader in loaders} | loaders
    while waiting := waiting - seen:
        if absent := sorted(waiting - known.keys()):
            raise SystemExit(f"hack/image: not known to ldconfig: {', '.join(absent)}")
        for name in waiting:
            chosen[f"{os.path.dirname(known[LIBC])}/{name}"] = known[name]
        seen |= waiting
        waiting = set().union(*[needed(Path(known[name]).read_bytes()) for name in waiting])
    in_usr = {(path if path.startswith("/usr/") else f"/usr{path}"): source for path, source in chosen.items()}
    return {SLEEP: sleep, **{path.lstrip("/"): source for path, source in in_usr.items()}}


def package_files(places: dict[str, str], parts: list[Part]) -> dict[str, File]:
    """Returns licences, the common ones to which they refer, and names and versions as scanners expect them."""
    files = {}
    for part in parts:
        files[f"usr/share/doc/{part.name}/copyright"] = File(0o644, part.licence.encode())
        for name in materials.REFERRED.findall(part.licence):
            if (text := materials.COMMON / name).exists():
                files[str(text).lstrip("/")] = File(0o644, text.read_bytes())
    paths = {os.path.realpath(source) for source in places.values()}
    owners = materials.debian_owners(paths)
    for owner in {owners[path] for path in paths if path in owners}:
        control = materials.dpkg_query("--status", owner, check=True)
        files[f"var/lib/dpkg/status.d/{owner.partition(':')[0]}"] = File(0o644, control.encode())
    return files


def system(bundle: dict[str, File]) -> tuple[dict[str, File], list[Part]]:
    """Returns the files that the bundle needs, and the packages that they are of."""
    places = sources(bundle)
    parts = materials.parts(json.dumps(sorted(places.items())))
    materials.report_missing("hack/image", "the image", parts)
    files = package_files(places, parts)
    for path, source in places.items():
        files[path] = File(os.stat(source).st_mode & 0o755, Path(source).read_bytes())
    used = {path.split("/")[1] for path in files if path.startswith("usr/")}
    files |= {folder: File(0o777, target=f"usr/{folder}") for folder in IN_USR if folder in used}
    files["etc/nsswitch.conf"] = File(0o644, NAME_SERVICE)
    return {**files, **dict.fromkeys(MOUNT_POINTS, File(0o755))}, parts
