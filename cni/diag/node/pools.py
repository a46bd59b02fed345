"""Pools of addresses: the range sets of networks and their leases, with what the kernel has of each holder."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from cni import HOST_LOCAL
from cni.diag.node.attachments import PRESENT
from cni.effects.alive import alive_in
from cni.protocol.address import parse_ip
from cni.protocol.errors import CniError
from cni.protocol.fields import ConfigErrors
from cni.protocol.plugin_config import parse_plugin_config
from cni.protocol.record import Record
from ipam.allocate import next_free
from ipam.config import read_settings
from ipam.ledger import find_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cni.diag.node.attachments import Attached
    from cni.diag.node.keptcalls import KeptCall
    from cni.diag.node.sight import Sight
    from cni.protocol.address import IP
    from ipam.config import Settings
    from ipam.lease import Lease
    from ipam.ranges import Range, RangeSet

    Json = dict[str, Any]

HELD, NEW, LEAKED = "held", "new", "leaked"
YOUNG_SECONDS = 60.0  # an ADD or a DEL may be under way


class FoundLease(Record):
    """A lease as it was read, and the time of its file in seconds (time.time)."""

    lease: Lease
    since: float


class HeldLease(Record):
    """A lease. `holder` is what people call the container; `state` HELD, NEW (its ADD may be under way) or LEAKED: no
    namespace of this host has the address, and nothing of the attachment is left. `since`: seconds (time.time).
    """

    lease: Lease
    holder: str
    state: str
    since: float


class Pool(Record):
    """A range set of a network. `size` counts addresses that can be leased, `next_ip` is the next one, None if the pool
    is exhausted. `ranges` is empty for leases outside all ranges, which nobody configures any more.
    """

    network: str
    folder: str
    ranges: str
    size: int
    next_ip: IP | None
    leases: tuple[HeldLease, ...]

    @property
    def is_full(self) -> bool:
        return bool(self.ranges) and self.next_ip is None

    @property
    def free(self) -> int:
        return max(0, self.size - len(self.leases))


def pools(configs: Iterable[Json], attached: Sequence[Attached], sight: Sight) -> list[Pool]:
    """Returns the pools that configurations name, each once, then leases outside all of their folder's ranges. Raises
    CniError where leases cannot be read.
    """
    judge = _judge(attached, sight)
    seen: dict[tuple[str, str], Pool] = {}
    found: dict[str, tuple[str, list[FoundLease]]] = {}  # by folder: the network's name and its leases
    for name, settings in _settings(configs):
        for range_set in settings.sets:
            if (settings.folder, range_set.text) not in seen:
                pool, leases = _read(name, settings, range_set)
                inside = [judge(name, each) for each in leases if range_set.range_of(each.lease.ip)]
                seen[settings.folder, range_set.text] = pool._replace(leases=tuple(inside))
                found.setdefault(settings.folder, (name, leases))
    strays = []
    for folder, (name, leases) in found.items():
        inside_any = {each.lease for pool in seen.values() if pool.folder == folder for each in pool.leases}
        outside = tuple([judge(name, each) for each in leases if each.lease not in inside_any])
        strays += [Pool(name, folder, "", 0, None, outside)] if outside else []
    return [*seen.values(), *strays]


def _read(name: str, settings: Settings, range_set: RangeSet) -> tuple[Pool, list[FoundLease]]:
    """Returns the pool without its leases, and all leases of its folder: nothing else is done under their lock."""
    ledger = find_ledger(settings.folder, None)
    if ledger is None:
        free, leases = next_free(range_set, None, lambda _family, low, _high: low), []
    else:
        with ledger:
            free = next_free(range_set, ledger.last(settings.sets.index(range_set)), ledger.first_free)
            leases = [FoundLease(lease, _modified(f"{settings.folder}/{lease.ip.text}")) for lease in ledger.read_all()]
    next_ip = free.address.ip if free is not None else None
    leases.sort(key=lambda each: (each.lease.ip.family, each.lease.ip.value))
    return Pool(name, settings.folder, range_set.text, _size(range_set), next_ip, ()), leases


def _judge(attached: Sequence[Attached], sight: Sight) -> Callable[[str, FoundLease], HeldLease]:
    """Returns the function that judges a lease of a network. One is held, too, as long as the runtime keeps its
    attachment, or the namespace of its ADD is there, and where containers may be hidden.
    """
    names = {tuple(each.owner): each.name for each in attached}
    kept = {each.owner.container_id for each in attached if each.kept is not None and _is_in_use(each.kept)}

    def judged(network: str, found: FoundLease) -> HeldLease:
        lease, since = found
        owner = (network, lease.container_id, lease.ifname)
        is_held = sight.hidden or lease.container_id in kept or alive_in(network, sight.addresses)(lease)
        state = HELD if is_held else NEW if time.time() - since < YOUNG_SECONDS else LEAKED
        return HeldLease(lease, names.get(owner, lease.container_id), state, since)

    return judged


def _is_in_use(kept: KeptCall) -> bool:
    return kept.by_runtime or (bool(kept.netns) and os.path.lexists(kept.netns))


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


def _modified(path: str) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:  # another program than podwire has just removed it
        return 0.0


def _size(range_set: RangeSet) -> int:
    return sum(map(_range_size, range_set.ranges))


def _range_size(part: Range) -> int:
    """Returns how many addresses can be leased: all but the gateway's."""
    return part.end.value - part.start.value + 1 - part.contains(part.gateway)


def unleased(pool: Pool, attached: Iterable[Attached]) -> Iterator[tuple[str, str]]:
    """Yields (address, name) of attachments of the pool's network whose address is not leased to them."""
    leased = {(each.lease.ip.text, each.lease.container_id) for each in pool.leases}
    for each in attached:
        if each.owner.network != pool.network or each.interface != PRESENT:
            continue
        for text in each.addresses:
            address = text.partition("/")[0]
            if (address, each.owner.container_id) not in leased and _is_of(pool, each, address):
                yield address, each.name


def _is_of(pool: Pool, attached: Attached, address: str) -> bool:
    """Returns True if the attachment's configuration leases from the pool's folder, and the address lies in it."""
    configs = attached.kept.configs if attached.kept is not None else ()
    for _, settings in _settings(configs):
        if settings.folder == pool.folder:
            ip = parse_ip(address)
            return any(range_set.text == pool.ranges and range_set.range_of(ip) for range_set in settings.sets)
    return False


def reclaim(pool: Pool) -> list[str]:
    """Releases the pool's leaked leases that under its lock are still those that were seen; returns the addresses.

    Who leases one of them again writes its file anew.

    Raises CniError.
    """
    leaked = {each.lease: each.since for each in pool.leases if each.state == LEAKED}
    ledger = find_ledger(pool.folder, lambda _: True) if leaked else None  # it shall release nothing by itself
    if ledger is None:
        return []
    has_interface = alive_in(pool.network, set())
    with ledger:
        released = [
            lease
            for lease in ledger.read_all()
            if leaked.get(lease) == _modified(f"{pool.folder}/{lease.ip.text}") and not has_interface(lease)
        ]
        for lease in released:
            ledger.release(lease)
    return [lease.ip.text for lease in released]
