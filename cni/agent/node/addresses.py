"""Counts the leased addresses of this node's subnets: files of host-local, by their names, read when somebody asks."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cni.protocol.address import parse_ip
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.protocol.address import Net

FOLDER = "/var/lib/cni/networks"  # host-local's default, with a folder for each network
SETTLED_SECONDS = 1.0  # a folder that changed later may change again without another time stamp
NOT_LEASED = {4: 3, 6: 2}  # addresses of a subnet: its first, the gateway's, and the broadcast address of IPv4


class AddressUse(Record):
    """The addresses of one subnet that can be leased, and those that are."""

    family: int
    size: int
    used: int


class LeasedAddresses:
    """Counts leases; a folder that has not changed is not read again."""

    def __init__(self, folder: str = FOLDER) -> None:
        self._folder = folder
        self._subnets: tuple[Net, ...] = ()
        self._seen: dict[str, tuple[int, dict[Net, int]]] = {}  # by folder: when it changed, and the numbers

    def count(self, subnets: Iterable[Net]) -> list[AddressUse]:
        """Returns the use of each subnet; nothing where no folder can be read, as in a container without it."""
        self._subnets = tuple(subnets)
        try:
            names = os.listdir(self._folder)
        except OSError:
            return []
        counts = [self._in_folder(os.path.join(self._folder, name)) for name in names]
        return [
            AddressUse(
                subnet.family,
                (1 << subnet.ip.bits - subnet.prefix) - NOT_LEASED[subnet.family],
                sum(used.get(subnet, 0) for used in counts),
            )
            for subnet in self._subnets
        ]

    def _in_folder(self, path: str) -> dict[Net, int]:
        try:
            changed = os.stat(path).st_mtime_ns
            seen = self._seen.get(path)
            if seen is None or seen[0] != changed or seen[1].keys() != set(self._subnets):
                counts = _leased(os.listdir(path), self._subnets)
            else:
                counts = seen[1]
        except OSError:  # not a folder, or gone
            return {}
        if time.time_ns() - changed > SETTLED_SECONDS * 1e9:
            self._seen[path] = changed, counts
        return counts


def _leased(names: list[str], subnets: tuple[Net, ...]) -> dict[Net, int]:
    counts = dict.fromkeys(subnets, 0)
    fronts = tuple([_front(subnet) for subnet in subnets if subnet.family == 4])
    for name in names:
        if ":" not in name and not name.startswith(fronts):  # of another network, which may be large
            continue
        try:
            ip = parse_ip(name)
        except ValueError:
            continue
        for subnet in subnets:
            counts[subnet] += subnet.contains(ip)
    return counts


def _front(subnet: Net) -> str:
    """Returns how all addresses of an IPv4 subnet begin as texts."""
    return "".join([f"{octet}." for octet in subnet.ip.packed[: subnet.prefix // 8]])
