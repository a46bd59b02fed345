"""Installed programs: what `podwire install` has put into a folder of plugins, and an unpacked archive there."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from cni.diag.belongings.belonging import PROGRAM, Belonging
from cni.diag.install import CONTENTS, VERSIONS
from cni.diag.install import PROGRAM as EXECUTABLE

if TYPE_CHECKING:
    from collections.abc import Iterator


def programs(folder: str) -> Iterator[Belonging]:
    """Yields links, versions, and the executable of an unpacked archive. Links come first: no name leads nowhere."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # a runtime may have no such folder
        return
    for name in names:
        path = f"{folder}/{name}"
        if os.path.islink(path) and _is_ours(os.readlink(path), folder):
            yield Belonging(PROGRAM, f"{path} -> {os.readlink(path)}", partial(os.unlink, path))
    executable = f"{folder}/{EXECUTABLE}"
    if os.path.isfile(executable) and not os.path.islink(executable) and _is_folder(f"{folder}/{CONTENTS}"):
        yield Belonging(PROGRAM, executable, partial(os.unlink, executable))
    for name in (CONTENTS, VERSIONS):
        path = f"{folder}/{name}"
        if _is_folder(path):
            yield Belonging(PROGRAM, f"{path}/", partial(shutil.rmtree, path))


def _is_ours(target: str, folder: str) -> bool:
    """Returns True for a link of podwire install: to a version, or to the executable, if that is podwire's as well."""
    if target.startswith(f"{VERSIONS}/"):
        return True
    executable = f"{folder}/{EXECUTABLE}"
    is_link = os.path.islink(executable) and os.readlink(executable).startswith(f"{VERSIONS}/")
    return target == EXECUTABLE and (is_link or _is_folder(f"{folder}/{CONTENTS}"))


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
