"""podwire's files: its state in /run, and folders of leases in which nothing is leased."""

from __future__ import annotations

import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

from cni.diag.belongings.belonging import LEASES, STATE, Belonging, Kept
from cni.kernel.hostlock import RUN
from ipam.config import DATA_DIR
from ipam.index import index_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LAST, LOCK = "last_reserved_ip.", "lock"  # files of host-local beside the leases


def run_folder() -> Iterator[Belonging]:
    """Yields the folder of locks, records, events and indexes."""
    if os.path.isdir(RUN) and not os.path.islink(RUN):
        yield Belonging(STATE, f"{RUN}/", partial(shutil.rmtree, RUN))


def lease_folders(data_dirs: Iterable[str]) -> Iterator[Belonging | Kept]:
    """Yields the folders from which podwire has leased, as its index shows. The reference host-local may have leased
    from them as well, so one with leases stays.
    """
    for data_dir in dict.fromkeys([DATA_DIR, *data_dirs]):
        for folder in _folders_in(data_dir):
            leases = [name for name in os.listdir(folder) if not _is_own(name)]
            if leases:
                yield Kept(f"{folder}/", f"it has {len(leases)} leases (podwire leases, podwire gc)")
            else:
                yield Belonging(LEASES, f"{folder}/", partial(_remove, folder))


def _is_own(name: str) -> bool:
    return name == LOCK or name.startswith(LAST)


def _remove(folder: str) -> None:
    """Raises OSError where the reference host-local has leased meanwhile, which does not wait for podwire's lock."""
    for name in filter(_is_own, os.listdir(folder)):
        os.unlink(f"{folder}/{name}")
    os.rmdir(folder)


def _folders_in(data_dir: str) -> Iterator[str]:
    """Yields the networks' folders that have an index of podwire's."""
    try:
        folders = [f"{data_dir}/{name}" for name in sorted(os.listdir(data_dir))]
    except OSError:
        return
    for folder in folders:
        if os.path.isdir(folder) and not os.path.islink(folder):
            status = os.stat(folder)
            if os.path.isdir(index_folder(f"{status.st_dev} {status.st_ino}")):  # ipam.store, identity
                yield folder
