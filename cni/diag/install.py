"""`podwire install`: copies the bundle to a folder of plugins, and links the names of the plugins that it replaces.

Each version has a folder of its own, and all else are links: one rename(2) is the upgrade. Running processes keep their
version, which is removed by the second upgrade after it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from cni import PODWIRE, PROGRAMS, VERSION
from cni.protocol import folders
from cni.protocol.errors import InvalidConfig, IOFailure
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = PODWIRE
CONTENTS = "podwire.d"  # the bundle's folder beside the executable
NOTICES = "NOTICES"  # the licences of third-party software, which lie beside the executable in an archive
VERSIONS = ".podwire"  # in the folder of plugins
NAMES = tuple(name for name in PROGRAMS if name != PODWIRE)
DESCRIPTION = """Copies this bundle to DIR as the executable podwire, and links plugin names to it. Files not installed
by podwire are kept, and are an error if --names lists them, unless --force is given."""

OPTIONS = {  # with the names of their values
    "--bin-dir DIR": "the runtime's folder of plugins (CNI_PATH)",
    "--names A,B": f"plugin names to link (default: all, {', '.join(NAMES)})",
    "--force": "replace files not installed by podwire",
}


class Order(Record):
    """The command line. `named`: the user listed the names."""

    folder: str
    names: tuple[str, ...]
    named: bool
    force: bool


def parse_order(arguments: Sequence[str]) -> Order:
    """Parses the command line. Raises SystemExit after printing help or the error, as argparse does."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} install", description=DESCRIPTION)
    parser.add_argument("--bin-dir", required=True, metavar="DIR", help=OPTIONS["--bin-dir DIR"])
    parser.add_argument("--names", metavar="A,B", help=OPTIONS["--names A,B"])
    parser.add_argument("--force", action="store_true", help=OPTIONS["--force"])
    options = parser.parse_args(list(arguments))
    names = NAMES if options.names is None else tuple(name for name in options.names.split(",") if name)
    for name in names:
        if name not in NAMES:
            parser.error(f"--names: unknown plugin {name!r} (available: {', '.join(NAMES)})")
    return Order(options.bin_dir, names, options.names is not None, options.force)


def install(order: Order) -> list[str]:
    """Installs, and returns a line for each name: what it is now.

    Raises InvalidConfig (before any change: not a bundle, or a name is a file not installed by podwire), IOFailure.
    """
    source = vars(sys).get("_MEIPASS")
    if source is None:
        raise InvalidConfig("install: not a bundle (build one with hack/build)")
    try:
        folders.make(order.folder, 0o755)
        foreign = [name for name in (PROGRAM, *order.names) if not _is_ours(order.folder, name)]
        conflicts = [f"{order.folder}/{name}" for name in foreign if order.named or name == PROGRAM]
        if conflicts and not order.force:
            raise InvalidConfig(f"{', '.join(conflicts)}: not installed by podwire (--force replaces it)")
        previous = _installed(order.folder)
        unpacked = os.path.isfile(f"{order.folder}/{PROGRAM}") and not os.path.islink(f"{order.folder}/{PROGRAM}")
        version = _place_version(os.path.dirname(source), order.folder)
        lines = _link(order.folder, PROGRAM, f"{VERSIONS}/{version}/{PROGRAM}")
        for name in order.names:
            if name in foreign and not order.force:
                lines.append(f"{order.folder}/{name}: not installed by podwire, kept (--force replaces it)")
            else:
                lines += _link(order.folder, name, PROGRAM)
        _remove_old(order.folder, (version, previous))
        if not unpacked:  # else processes of the unpacked bundle may still run
            shutil.rmtree(f"{order.folder}/{CONTENTS}", ignore_errors=True)
    except OSError as error:
        raise IOFailure(f"{error.filename}: {error.strerror}, cannot install in {order.folder}") from None
    return lines


def _is_ours(folder: str, name: str) -> bool:
    """Returns True if the name is free, a link of podwire install, or the executable of an unpacked archive."""
    path = f"{folder}/{name}"
    if not os.path.lexists(path):
        return True
    if os.path.islink(path):
        return os.readlink(path) == PROGRAM or os.readlink(path).startswith(f"{VERSIONS}/")
    return name == PROGRAM and os.path.isdir(f"{folder}/{CONTENTS}")


def _place_version(source: str, folder: str) -> str:
    """Copies the bundle to a folder with a new number, and returns the folder's name."""
    versions = f"{folder}/{VERSIONS}"
    folders.make(versions, 0o755)
    number = 1
    while os.path.exists(f"{versions}/{VERSION}-{number}"):
        number += 1
    version = f"{VERSION}-{number}"
    copying = f"{versions}/.{version}"
    try:
        shutil.rmtree(copying, ignore_errors=True)
        os.mkdir(copying, 0o755)
        shutil.copy2(f"{source}/{PROGRAM}", f"{copying}/{PROGRAM}")
        shutil.copytree(f"{source}/{CONTENTS}", f"{copying}/{CONTENTS}", symlinks=True)
        if os.path.exists(f"{source}/{NOTICES}"):
            shutil.copy2(f"{source}/{NOTICES}", f"{copying}/{NOTICES}")
        os.rename(copying, f"{versions}/{version}")
    except OSError:
        shutil.rmtree(copying, ignore_errors=True)
        raise
    return version


def _link(folder: str, name: str, target: str) -> list[str]:
    """Replaces a file by a link atomically, and returns the line for it."""
    temporary = f"{folder}/.{name}.new"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    os.symlink(target, temporary)
    os.rename(temporary, f"{folder}/{name}")
    return [f"{folder}/{name} -> {target}"]


def _remove_old(folder: str, keep: tuple[str, ...]) -> None:
    """Removes all versions but the new one and the one before it, whose processes may still run."""
    versions = f"{folder}/{VERSIONS}"
    for name in os.listdir(versions):
        if name not in keep:
            shutil.rmtree(f"{versions}/{name}")


def _installed(folder: str) -> str:
    """Returns the version that the executable is a link to; empty if it is not a link."""
    path = f"{folder}/{PROGRAM}"
    return os.path.basename(os.path.dirname(os.readlink(path))) if os.path.islink(path) else ""
