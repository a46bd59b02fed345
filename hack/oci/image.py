"""The image of podwire, an OCI archive.

`python -m hack.oci.image NAME ARCHIVE PACKAGES` writes it beside the bundle's archive, with the list of materials
(SBOM) of both, and prints its path; PACKAGES are those of the bundle, as materials.py found them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hack.bundle.materials import Part, merged
from hack.oci.tree import HOME, File, bundle_of, system

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
BORN = 315532800  # 1980-01-01, as what is in the bundle
MEDIA, ANNOTATION = "application/vnd.oci.image", "org.opencontainers.image"
LABELS = {
    "title": "podwire",
    "description": "A CNI plugin and a node agent: pods' networks, overlay routes and NetworkPolicy",
    "authors": "podwire authors",
}


def write_tar(files: dict[str, File]) -> bytes:
    """Returns a tar archive: sorted, owned by root, without times."""
    folders = {str(folder): File(0o755) for path in files for folder in Path(path).parents if folder.name}
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path, file in sorted({**folders, **files}.items()):
            member = tarfile.TarInfo(path)
            member.mode, member.mtime, member.linkname = file.mode, BORN, file.target
            member.size = len(file.data or b"")
            member.type = tarfile.SYMTYPE if file.target else tarfile.DIRTYPE if file.data is None else tarfile.REGTYPE
            tar.addfile(member, io.BytesIO(file.data or b""))
    return memory.getvalue()


def encoded(value: dict[str, Any] | list[Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def git(*arguments: str, folder: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(root: Path) -> tuple[int, str]:
    """Returns the time of the commit of a tree, and its name; a tree without git has a time and no name."""
    try:
        top = git("rev-parse", "--show-toplevel", folder=root)
        seconds = int(git("show", "--no-patch", "--format=%ct", "HEAD", folder=root))
        revision = git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", folder=root)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return BORN, ""
    if Path(top) != root:  # a source archive, unpacked below another repository
        return BORN, ""
    return seconds, revision


def image(name: str, platform: dict[str, str], created: str, labels: dict[str, str], layers: Sequence[bytes]) -> bytes:
    """Returns the archive: an OCI layout, and docker's manifest.json for the same blobs."""
    files = {"oci-layout": File(0o644, encoded({"imageLayoutVersion": "1.0.0"}))}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = File(0o644, data)
        return {"mediaType": f"{MEDIA}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def path(entry: dict[str, Any]) -> str:
        return f"blobs/{entry['digest'].replace(':', '/')}"

    config = {
        **platform,
        "created": created,
        "config": {
            "Entrypoint": [f"/{HOME}/podwired"],
            "Env": [f"PATH=/{HOME}:/usr/bin"],
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
        "history": [{"created": created, "created_by": "hack/image"}] * len(layers),
    }
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": f"{MEDIA}.manifest.v1+json",
        "config": blob("config.v1+json", encoded(config)),
        "layers": [blob("layer.v1.tar+gzip", gzip.compress(layer, 6, mtime=0)) for layer in layers],
        "annotations": labels,
    }
    entry = blob("manifest.v1+json", encoded(manifest)) | {"platform": platform}
    tag = name.rpartition(":")[2]
    entry["annotations"] = {"io.containerd.image.name": name, f"{ANNOTATION}.ref.name": tag}
    files["index.json"] = File(0o644, encoded({"schemaVersion": 2, "manifests": [entry]}))
    for_docker = {"Config": path(manifest["config"]), "RepoTags": [name], "Layers": [*map(path, manifest["layers"])]}
    files["manifest.json"] = File(0o644, encoded([for_docker]))
    return write_tar(files)


def full_name(name: str, version: str) -> str:
    """Returns the image's name as kubelet passes it to the runtime: with registry and tag."""
    first, slash, _ = name.partition("/")
    registry = bool(slash) and (first == "localhost" or "." in first or ":" in first)
    name = name if registry else f"docker.io/{name if slash else f'library/{name}'}"
    return name if ":" in name.rpartition("/")[2] else f"{name}:{version}"


def main() -> int:
    from cyclonedx.model.component import ComponentType

    from hack.bundle.sbom import write_sbom

    archive, packages = map(Path, sys.argv[2:])
    version, architecture = archive.name.removeprefix("podwire-").removesuffix(".tgz").split("-linux-")
    name = full_name(sys.argv[1], version)
    bundle = bundle_of(archive)
    files, parts = system(bundle)
    seconds, revision = commit(ROOT)
    created = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    labels = {**LABELS, "version": version, **({"created": created, "revision": revision} if revision else {})}
    result = archive.with_suffix(".oci.tar")
    new = result.with_name(f"{result.name}.{os.getpid()}")
    new.write_bytes(
        image(
            name,
            {"architecture": architecture, "os": "linux"},
            created,
            {f"{ANNOTATION}.{key}": value for key, value in labels.items()},
            [write_tar(files), write_tar(bundle)],
        )
    )
    new.replace(result)
    of_bundle = [Part(**fields) for fields in json.loads(packages.read_text(encoding="utf-8"))]
    write_sbom(merged([*of_bundle, *parts]), result, ComponentType.CONTAINER, seconds)
    sys.stderr.write(f"hack/image: {name}, {result.stat().st_size / 1e6:.1f} MB\n")
    sys.stdout.write(f"{result}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
