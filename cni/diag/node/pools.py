"""Pools of addresses: the range sets of networks and their leases, with what the kernel has of each holder."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from cni import HOST_LOCAL
from cni.diag.node.attachments import PRESENT
from cni.effects.alive import alive_in
from cni.protocol.errors import CniError
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import parse_plugin_config
from cni.protocol.record import Record
from ipam.allocate import next_free
from ipam.config import read_settings
from ipam.ledger import find_ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.diag.node.attachments import Attached
    from cni.protocol.address import IP
    from ipam.config import Settings
    from ipam.lease import Lease
    from ipam.ledger import Ledger
    from ipam.ranges import Range, RangeSet

    Json = dict[str, Any]

HELD, NEW, LEAKED = "held", "new", "leaked"
YOUNG_SECONDS = 60.0  # the ADD of a lease may be under way


class HeldLease(Record):
    """A lease. `holder` is what people call the container; `state` HELD, NEW (its ADD may be under way) or LEAKED: no
    namespace of this host has the address, and no interface of the attachment is left. `since`: seconds (time.time).
    """

    lease: Lease
    holder: str
    state: str
    since: float


class Pool(Record):
    """A range set of a network. `size` counts addresses that can be leased, `next_ip` is the next one, None if the pool
    is exhausted. `ranges` is empty for leases whose network nobody configures any more.
    """

    network: str
    folder: str
    ranges: str
    size: int
    next_ip: IP | None
    leases: tuple[HeldLease, ...]


def pools(configs: Iterable[Json], attached: Iterable[Attached]) -> list[Pool]:
    """Returns the pools that configurations name, each once. Raises CniError where leases cannot be read."""
    holders = {tuple(each.owner): each.name for each in attached}
    seen: dict[tuple[str, str], Pool] = {}
    for name, settings in _settings(configs):
        new = [range_set for range_set in settings.sets if (settings.folder, range_set.text) not in seen]
        ledger = find_ledger(settings.folder, None) if new else None
        if ledger is None:
            for range_set in new:
                first = next_free(range_set, None, lambda _family, low, _high: low)
                free = first.address.ip if first is not None else None
                text = range_set.text
                seen[settings.folder, text] = Pool(name, settings.folder, text, _size(range_set), free, ())
            continue
        with ledger:
            held = _held(name, settings.folder, ledger, holders)
            for range_set in new:
                pool = _pool(name, settings, range_set, ledger, held)
                seen[settings.folder, range_set.text] = pool
    return list(seen.values())


def _settings(configs: Iterable[Json]) -> Iterator[tuple[str, Settings]]:
    """Yields what the allocator reads of each configuration that it has, but for those with errors (podwire lint)."""
    for config in configs:
        ipam = config.get("ipam")
        if not isinstance(ipam, dict) or ipam.get("type") != HOST_LOCAL:
            continue
        try:
            parsed = parse_plugin_config(json.dumps(config).encode(), "ADD")
        except CniError:
            continue
        errors = ConfigErrors()
        settings = read_settings(parsed, {}, errors, of_container=False)
        if not errors.count and not parsed.error:
            yield parsed.name, settings


def _held(network: str, folder: str, ledger: Ledger, holders: dict[tuple[str, ...], str]) -> list[HeldLease]:
    """Returns all leases of a folder. Raises OSError."""
    alive = alive_in(network)
    held = []
    for lease in sorted(ledger.read_all(), key=lambda lease: (lease.ip.family, lease.ip.value)):
        since = _modified(f"{folder}/{lease.ip.text}")
        owner = Owner(network, lease.container_id, lease.ifname)
        is_young = time.time() - since < YOUNG_SECONDS
        state = HELD if alive(lease) else NEW if is_young else LEAKED
        held.append(HeldLease(lease, holders.get(tuple(owner), lease.container_id), state, since))
    return held


def _modified(path: str) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:  # another program than podwire has just removed it
        return 0.0


def _pool(name: str, settings: Settings, range_set: RangeSet, ledger: Ledger, held: list[HeldLease]) -> Pool:
    free = next_free(range_set, ledger.last(settings.sets.index(range_set)), ledger.first_free)
    leases = tuple([each for each in held if range_set.range_of(each.lease.ip)])
    next_ip = free.address.ip if free is not None else None
    return Pool(name, settings.folder, range_set.text, _size(range_set), next_ip, leases)


def _size(range_set: RangeSet) -> int:
    return sum(map(_range_size, range_set.ranges))


def _range_size(part: Range) -> int:
    """Returns how many addresses can be leased: all but the gateway's."""
    return part.end.value - part.start.value + 1 - part.contains(part.gateway)


def unleased(pool: Pool, attached: Iterable[Attached]) -> Iterator[tuple[str, str]]:
    """Yields (address, name) of attachments of the pool's network whose address has no lease."""
    leased = {each.lease.ip.text for each in pool.leases}
    for each in attached:
        if each.owner.network != pool.network or each.interface != PRESENT:
            continue
        for text in each.addresses:
            address = text.partition("/")[0]
            if address not in leased and _is_of(pool, each, address):
                yield address, each.name


def _is_of(pool: Pool, attached: Attached, address: str) -> bool:
    """Returns True if the attachment's configuration leases from the pool's folder, and the address lies in it."""
    from cni.protocol.address import parse_ip

    configs = attached.kept.configs if attached.kept is not None else ()
    for _, settings in _settings(configs):
        if settings.folder == pool.folder:
            ip = parse_ip(address)
            return any(range_set.text == pool.ranges and range_set.range_of(ip) for range_set in settings.sets)
    return False


def reclaim(pool: Pool) -> list[str]:
    """Releases the pool's leaked leases that are still leaked under its lock; returns the addresses.

    Raises CniError.
    """
    leaked = {each.lease for each in pool.leases if each.state == LEAKED}
    alive = alive_in(pool.network)
    ledger = find_ledger(pool.folder, alive) if leaked else None
    if ledger is None:
        return []
    with ledger:
        released = [lease for lease in ledger.read_all() if lease in leaked and not alive(lease)]
        for lease in released:
            ledger.release(lease)
    return [lease.ip.text for lease in released]
