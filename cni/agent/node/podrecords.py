"""Records of the pods that ADD has attached to this node: a file of each address, in a folder whose presence tells the
plugin that NetworkPolicy is enforced.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from cni.effects.policy import read_record
from cni.protocol.address import IP, parse_ip
from cni.protocol.owner import host_interface_of, label_keys
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.agent.policy.events import Key

YOUNG_SECONDS = 60.0  # the ADD of a record may be under way


class AttachedPod(Record):
    """The holder of an address: `pod` is None for a container that is no pod; `since` a time (time.time)."""

    pod: Key | None
    host_interface: str
    since: float


class PodRecords:
    """The records of one network namespace."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def begin(self, marks: Mapping[str, bool]) -> None:
        """Makes the folder if it is missing, and in it the files that tell the plugin what holds (OPEN, UNCHECKED).

        Raises OSError.
        """
        os.makedirs(self.folder, 0o700, exist_ok=True)
        for name, holds in marks.items():
            path = os.path.join(self.folder, name)
            if holds:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    def read(self, address: bytes) -> AttachedPod | None:
        """Returns None if there is no record, or it is not written to its end. Raises IOFailure."""
        path = self._path(address)
        record = read_record(path)
        keys = label_keys(record.label) if record is not None else None
        if record is None or keys is None:
            return None
        try:
            since = os.stat(path).st_mtime
        except OSError:  # gone meanwhile
            return None
        pod = (record.namespace, record.name) if record.namespace else None
        return AttachedPod(pod, host_interface_of(keys[1]), since)

    def read_all(self) -> dict[bytes, AttachedPod]:
        """Returns all records by address. Raises OSError, IOFailure."""
        pods = {}
        for name in os.listdir(self.folder):
            with contextlib.suppress(ValueError):
                address = parse_ip(name).packed
                pod = self.read(address)
                if pod is not None:
                    pods[address] = pod
        return pods

    def forget(self, address: bytes) -> None:
        """Removes a record. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(address))

    def _path(self, address: bytes) -> str:
        return os.path.join(self.folder, IP.from_packed(address).text)


def is_young(pod: AttachedPod) -> bool:
    return time.time() - pod.since < YOUNG_SECONDS


def remove(folder: str) -> None:
    """Removes the folder with all records: nothing is pending any more. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
