"""The list of materials (SBOM) of the bundle or of the image, in CycloneDX's JSON.

`python -m hack.bundle.sbom PACKAGES ARCHIVE` writes it beside the archive, of the packages that materials.py found;
hack/oci/image.py writes that of the image. It has no time but the archive's, and no random number: equal archives have
equal lists.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from cni import VERSION
from hack.bundle.materials import DEBIAN, PYTHON, Part

SUFFIX = ".cdx.json"


def distribution() -> tuple[str, str]:
    """Returns the name and the release of the distribution, as addresses of packages have them."""
    release = platform.freedesktop_os_release()
    name = release["ID"]
    return name, f"{name}-{release.get('VERSION_ID', '')}".rstrip("-")


def purl(part: Part) -> PackageURL:
    if part.kind == DEBIAN:
        vendor, release = distribution()
        return PackageURL("deb", vendor, part.name, part.version, {"distro": release})
    return PackageURL("pypi" if part.kind == PYTHON else "generic", None, part.name.lower(), part.version)


def component(part: Part) -> Component:
    address = purl(part)
    return Component(
        name=part.name,
        version=part.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(address),
        purl=address,
        licenses=[LicenseFactory().make_from_string(part.expression)] if part.expression else [],
        properties=[Property(name="podwire:contains", value=held) for held in part.holds],
    )


def sbom(found: list[Part], root: Component, digest: str, seconds: int) -> str:
    """Returns the list's text for an archive, the component `root`, that has this SHA-256."""
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))
    bom.metadata.timestamp = datetime.fromtimestamp(seconds, UTC)
    bom.metadata.component = root
    listed = [component(part) for part in found]
    bom.components.update(listed)
    bom.register_dependency(root, listed)
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return f"{text}\n"


def write_sbom(found: list[Part], archive: Path, kind: ComponentType, seconds: int) -> None:
    """Writes the list beside the archive. An image (container) has no licence of its own: its packages have theirs."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    root = Component(
        name="podwire",
        version=VERSION,
        type=kind,
        bom_ref="podwire",
        licenses=[] if kind == ComponentType.CONTAINER else [LicenseFactory().make_from_string("Apache-2.0")],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        properties=[Property(name="podwire:archive", value=archive.name)],
    )
    archive.with_suffix(SUFFIX).write_text(sbom(found, root, digest, seconds), encoding="utf-8")


def main() -> int:
    packages, archive = map(Path, sys.argv[1:])
    found = [Part(**fields) for fields in json.loads(packages.read_text(encoding="utf-8"))]
    write_sbom(found, archive, ComponentType.APPLICATION, int(os.environ["SOURCE_DATE_EPOCH"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
