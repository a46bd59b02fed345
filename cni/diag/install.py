"""`podwire install`: the bundle into a folder of plugins, with links under the names that it stands in for.

A version lies in a folder of its own, and everything else is a link: one rename(2) is the upgrade, and what runs keeps
its own version, which stays until the next.
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
VERSIONS = ".podwire"  # in the folder of plugins
NAMES = tuple(name for name in PROGRAMS if name != PODWIRE)
DESCRIPTION = """Copies this bundle to DIR as the executable podwire, and links plugin names to it: all of these,
or those that are named. A name that is another program's is left alone, or refused where it was named, unless
--force says otherwise."""


class Order(Record):
    """What is to be installed where. `named`: the user asked for just these names."""

    folder: str
    names: tuple[str, ...]
    named: bool
    force: bool


def parse_order(arguments: Sequence[str]) -> Order:
    """Raises SystemExit after printing help or what is wrong, as argparse does."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} install", description=DESCRIPTION)
    parser.add_argument("--bin-dir", required=True, metavar="DIR", help="where the runtime looks for plugins")
    known = ", ".join(NAMES)
    parser.add_argument("--names", metavar="A,B", help=f"plugin names to link (default: {known})")
    parser.add_argument("--force", action="store_true", help="replace programs of others")
    found = parser.parse_args(list(arguments))
    names = NAMES if found.names is None else tuple(name for name in found.names.split(",") if name)
    for name in names:
        if name not in NAMES:
            parser.error(f"--names: {name!r} is none of {known}")
    return Order(found.bin_dir, names, found.names is not None, found.force)


def install(order: Order) -> list[str]:
    """Installs, and tells in lines what is where now.

    Raises InvalidConfig (nothing was touched: this is no bundle, a name is another's), IOFailure.
    """
    source = vars(sys).get("_MEIPASS")
    if source is None:
        raise InvalidConfig("only the bundle can be installed: build it with hack/build")
    try:
        folders.make(order.folder, 0o755)
        foreign = [name for name in (PROGRAM, *order.names) if not _is_ours(order.folder, name)]
        refused = [name for name in foreign if order.named or name == PROGRAM]
        if refused and not order.force:
            named = ", ".join(f"{order.folder}/{name}" for name in refused)
            raise InvalidConfig(f"not podwire's, so left alone: {named}; --force replaces it")
        before = _installed(order.folder)
        unpacked = os.path.isfile(f"{order.folder}/{PROGRAM}") and not os.path.islink(f"{order.folder}/{PROGRAM}")
        version = _place_version(os.path.dirname(source), order.folder)
        said = _link(order.folder, PROGRAM, f"{VERSIONS}/{version}/{PROGRAM}")
        for name in order.names:
            if name in foreign and not order.force:
                said.append(f"{order.folder}/{name}: another program's, left alone (--force replaces it)")
            else:
                said += _link(order.folder, name, PROGRAM)
        _remove_old(order.folder, (version, before))
        if not unpacked:  # else its processes may still be running
            shutil.rmtree(f"{order.folder}/{CONTENTS}", ignore_errors=True)
    except OSError as error:
        raise IOFailure(f"cannot install in {order.folder}: {error.strerror} ({error.filename})") from None
    return said


def _is_ours(folder: str, name: str) -> bool:
    """Nothing of the name is there, or a link of ours, or the executable of an unpacked archive."""
    path = f"{folder}/{name}"
    if not os.path.lexists(path):
        return True
    if os.path.islink(path):
        return os.readlink(path) == PROGRAM or os.readlink(path).startswith(f"{VERSIONS}/")
    return name == PROGRAM and os.path.isdir(f"{folder}/{CONTENTS}")


def _place_version(source: str, folder: str) -> str:
    """Copies the bundle to a folder that no other copy has had, and gives its name."""
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
        os.rename(copying, f"{versions}/{version}")
    except OSError:
        shutil.rmtree(copying, ignore_errors=True)
        raise
    return version


def _link(folder: str, name: str, target: str) -> list[str]:
    """A link in place of whatever is there, at no moment of nothing."""
    beside = f"{folder}/.{name}.new"
    if os.path.lexists(beside):
        os.unlink(beside)
    os.symlink(target, beside)
    os.rename(beside, f"{folder}/{name}")
    return [f"{folder}/{name} -> {target}"]


def _remove_old(folder: str, keep: tuple[str, ...]) -> None:
    """All versions but this one and the one before it, whose processes may still be running."""
    versions = f"{folder}/{VERSIONS}"
    for name in os.listdir(versions):
        if name not in keep:
            shutil.rmtree(f"{versions}/{name}")


def _installed(folder: str) -> str:
    """The version that the executable is a link to; empty where it is none."""
    path = f"{folder}/{PROGRAM}"
    return os.path.basename(os.path.dirname(os.readlink(path))) if os.path.islink(path) else ""
