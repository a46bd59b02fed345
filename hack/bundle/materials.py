"""Third-party software in the bundle: which package each file and module comes from, and its licence.

`python -m hack.bundle.materials CONTENTS PACKAGES NOTICES` reads the list that podwire.spec writes, and writes the
packages (JSON, for sbom.py) and their licences. Shared libraries and the interpreter belong to Debian packages, which
have a file `copyright`; Python packages have their licences beside their metadata.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from cni import VERSION

DOC, COMMON = Path("/usr/share/doc"), Path("/usr/share/common-licenses")
REFERRED = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.-]*[A-Za-z0-9])")
LICENCE_FILES = ("LICENSE", "LICENCE", "COPYING", "NOTICE")
DEBIAN, PYTHON, OTHER = "Debian package", "Python package", "of the build machine"
LIBRARY = "the standard library of Python"
MISSING = "No licence was found on the machine that built this archive.\n"
RULE = "=" * 80
INTRODUCTION = f"""podwire {VERSION} is licensed under the Apache License, version 2.0 (podwire.d/LICENSE).

This archive contains third-party software as well. Its licences follow, those of Debian packages as the packages have
them, including licences of files that are not in this archive.
"""


class Part(NamedTuple):
    """A package of third-party software; `holds` names what the bundle has of it."""

    name: str
    version: str
    kind: str
    holds: tuple[str, ...]
    licence: str
    expression: str = ""


def dpkg_query(*arguments: str, check: bool) -> str:
    """Returns the output of dpkg-query, which is in the language of its locale."""
    command, environment = ["dpkg-query", *arguments], {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, env=environment, capture_output=True, check=check)
    return done.stdout.decode(errors="surrogateescape")


def debian_owners(paths: set[str]) -> dict[str, str]:
    """Returns the Debian packages of files, as dpkg knows them: also by their paths before /lib became /usr/lib."""
    names = sorted(paths | {path.removeprefix("/usr") for path in paths})
    try:
        listed = dpkg_query("--search", *names, check=False)
    except FileNotFoundError:  # another distribution
        return {}
    owners: dict[str, str] = {}
    for line in listed.splitlines():
        packages, _, path = line.rpartition(": ")
        if not packages.startswith("diversion "):
            owners[path] = owners[f"/usr{path}"] = packages.partition(",")[0]
    return owners


def python_owners() -> dict[str, importlib.metadata.Distribution]:
    """Returns the Python packages of this environment by the paths of their files."""
    return {
        os.path.realpath(file.locate()): distribution
        for distribution in importlib.metadata.distributions()
        for file in distribution.files or []
    }


def debian_part(package: str, holds: tuple[str, ...]) -> Part:
    version = dpkg_query("--show", "--showformat=${Version}", package, check=True)
    name = package.partition(":")[0]
    copyright_file = DOC / name / "copyright"
    licence = copyright_file.read_text(encoding="utf-8", errors="replace") if copyright_file.exists() else MISSING
    return Part(name, version, DEBIAN, holds, licence)


def python_part(distribution: importlib.metadata.Distribution, holds: tuple[str, ...]) -> Part:
    texts = [
        Path(os.fspath(file.locate())).read_text(encoding="utf-8", errors="replace").rstrip("\n") + "\n"
        for file in sorted(distribution.files or [])
        if file.parts[0].endswith(".dist-info") and file.name.upper().startswith(LICENCE_FILES)
    ]
    metadata = distribution.metadata
    expressions = metadata.get_all("License-Expression") or metadata.get_all("License") or [""]
    return Part(metadata["Name"], distribution.version, PYTHON, holds, "\n".join(texts) or MISSING, expressions[0])


def other_part(name: str, holds: tuple[str, ...]) -> Part:
    """Returns the part for what no package has: an interpreter built from source, or a library beside it."""
    if name != LIBRARY:
        return Part(name, "unknown", OTHER, holds, MISSING)
    licence = Path(sysconfig.get_path("stdlib"), "LICENSE.txt")
    text = licence.read_text(encoding="utf-8", errors="replace") if licence.exists() else MISSING
    return Part("CPython", platform.python_version(), OTHER, holds, text)


def parts(contents: str) -> list[Part]:
    """Returns the packages of which the bundle has something, by their names."""
    listed = [(held, os.path.realpath(path)) for held, path in json.loads(contents)]
    of_debian, of_python = debian_owners({path for _, path in listed}), python_owners()
    library = f"{os.path.realpath(sysconfig.get_path('stdlib'))}/"
    holds: dict[str | importlib.metadata.Distribution, set[str]] = {}
    other: dict[str, set[str]] = {}
    for held, path in listed:
        if owner := of_debian.get(path) or of_python.get(path):
            holds.setdefault(owner, set()).add(held)
        else:
            name = os.path.basename(path)
            of_interpreter = path.startswith(library) or name.startswith("libpython")
            other.setdefault(LIBRARY if of_interpreter else name, set()).add(held)
    found = [
        debian_part(owner, tuple(sorted(held))) if isinstance(owner, str) else python_part(owner, tuple(sorted(held)))
        for owner, held in holds.items()
    ]
    return sorted(found + [other_part(name, tuple(sorted(held))) for name, held in other.items()])


def merged(found: list[Part]) -> list[Part]:
    """Returns the packages, each once, with all that is there of it."""
    known: dict[tuple[str, str, str], Part] = {}
    for part in found:
        before = known.setdefault(part[:3], part)
        known[part[:3]] = before._replace(holds=tuple(sorted({*before.holds, *part.holds})))
    return sorted(known.values())


def report_missing(program: str, what: str, found: list[Part]) -> None:
    """Names the packages of which there is no licence."""
    if absent := [part.name for part in found if part.licence == MISSING]:
        sys.stderr.write(f"{program}: {what} has no licence of {', '.join(absent)}: no package with it is installed\n")


def notices(found: list[Part]) -> str:
    """Returns the text of NOTICES: packages of one licence together, then the licences to which their texts refer."""
    packages: dict[str, list[Part]] = {}
    for part in found:
        packages.setdefault(part.licence, []).append(part)
    sections = []
    for licence, together in packages.items():
        heads = [f"{name} {version} ({kind}): {', '.join(holds)}" for name, version, kind, holds, *_ in together]
        sections.append("\n".join([*heads, "", licence]))
    referred = sorted({name for licence in packages for name in REFERRED.findall(licence)})
    for name in referred:
        if (COMMON / name).exists():
            text = (COMMON / name).read_text(encoding="utf-8", errors="replace")
            sections.append(f"/usr/share/common-licenses/{name}\n\n{text}")
    return f"\n{RULE}\n".join([INTRODUCTION, *[section.rstrip("\n") + "\n" for section in sections]])


def main() -> int:
    contents, packages, target = map(Path, sys.argv[1:])
    found = parts(contents.read_text(encoding="utf-8"))
    packages.write_text(json.dumps([part._asdict() for part in found]), encoding="utf-8")
    target.write_text(notices(found), encoding="utf-8")
    report_missing("hack/build", "NOTICES", found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
