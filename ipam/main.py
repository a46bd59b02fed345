"""The allocator's verbs, for the plugin in the same process and for the program host-local.

`alive` is the caller's predicate: True if an interface of a lease's owner, or one with its address, is on this host.
"""

from __future__ import annotations

from cni.protocol.errors import CheckFailed, InvalidConfig, IOFailure, OperationFailed, PluginNotAvailable, TryAgain
from cni.protocol.result import DNS, Result
from ipam.allocate import assign, next_free
from ipam.config import lease_folder, parse_settings, read_settings
from ipam.lease import Lease
from ipam.ledger import find_ledger, open_ledger
from ipam.ranges import SetIndex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.protocol.address import IP
    from cni.protocol.fields import ConfigErrors
    from cni.protocol.plugin_config import PluginConfig
    from cni.protocol.request import Request
    from cni.protocol.result import IPConfig
    from ipam.ledger import Alive, Ledger
    from ipam.ranges import RangeSet

__all__ = ["Lease", "add", "check", "collect", "delete", "leased", "status", "validate"]


def validate(request: Request, config: PluginConfig, errors: ConfigErrors) -> set[int]:
    """Adds the errors of the allocator's part of a configuration. Returns the families of its ranges."""
    settings = read_settings(config, request.args, errors, of_container=request.command != "STATUS")
    return {part.subnet.family for range_set in settings.sets for part in range_set.ranges}


def add(request: Request, config: PluginConfig, alive: Alive) -> Result:
    """Leases one address of every range set; returns ips (without interface index), routes, dns.

    Raises InvalidConfig, IOFailure (disk, resolvConf), TryAgain (a set is exhausted, a requested address leased),
    OperationFailed (the attachment has one already). After an error this call has leased nothing.
    """
    settings = parse_settings(config, request.args)
    wanted = assign(settings.sets, settings.requested)
    dns = DNS()
    if settings.resolv_conf:
        from ipam.resolv import read_resolv_conf

        dns = read_resolv_conf(settings.resolv_conf)
    with open_ledger(settings.folder, alive) as ledger:
        ips = _reserve(ledger, request, settings.sets, wanted)
    return Result((), ips, settings.routes, dns)


def _lease(request: Request, ip: IP) -> Lease:
    return Lease(ip, request.container_id, request.ifname)


def _reserve(
    ledger: Ledger, request: Request, sets: Sequence[RangeSet], wanted: Sequence[IPConfig | None]
) -> tuple[IPConfig, ...]:
    ips: list[IPConfig] = []
    held = {} if all(wanted) else _held_in(ledger, request, sets)
    try:
        for position, range_set in enumerate(sets):
            requested = wanted[position]
            if requested:
                ips.append(_lease_requested(ledger, request, requested, range_set, position))
            else:
                _raise_if_duplicate(held, request, position)
                ips.append(_lease_next(ledger, request, range_set, position))
    except BaseException:
        _release(ledger, [_lease(request, config.address.ip) for config in ips])
        raise
    return tuple(ips)


def _release(ledger: Ledger, leases: Iterable[Lease]) -> list[str]:
    """Releases all leases, also after an error; returns the errors."""
    errors = []
    for lease in leases:
        try:
            ledger.release(lease)
        except OSError as error:
            errors.append(f"{lease.ip.text}: {error.strerror}")
    return errors


def _lease_requested(
    ledger: Ledger, request: Request, config: IPConfig, range_set: RangeSet, position: int
) -> IPConfig:
    ip = config.address.ip
    if not ledger.lease(_lease(request, ip), position):
        error = f"requested IP address {ip.text} is not available in range set {range_set.text}"
        raise TryAgain(f"failed to allocate for range {position}: {error}")
    return config


def _lease_next(ledger: Ledger, request: Request, range_set: RangeSet, position: int) -> IPConfig:
    while config := next_free(range_set, ledger.last(position), ledger.first_free):
        if ledger.lease(_lease(request, config.address.ip), position):
            return config
    error = f"no IP addresses available in range set: {range_set.text}"
    raise TryAgain(
        f"failed to allocate for range {position}: {error}", "the runtime's GC frees leases of containers that are gone"
    )


def _held_in(ledger: Ledger, request: Request, sets: Sequence[RangeSet]) -> dict[int, IP]:
    """Returns the attachment's addresses by the position of the range set; older leases without interface count."""
    index, owner = SetIndex(sets), request.container_id
    held: dict[int, IP] = {}
    for lease in ledger.held(owner, request.ifname) + ledger.held(owner, ""):
        if place := index.find(lease.ip):
            held.setdefault(place[0], lease.ip)
    return held


def _raise_if_duplicate(held: dict[int, IP], request: Request, position: int) -> None:
    owner, ip = request.container_id, held.get(position)
    if ip is not None:
        error = f"{ip.text} has been allocated to {owner}, duplicate allocation is not allowed"
        raise OperationFailed(
            f"failed to allocate for range {position}: {error}", f"DEL {owner}/{request.ifname} before another ADD"
        )


def delete(request: Request, config: PluginConfig, alive: Alive) -> None:
    """Releases all leases of the attachment; having none is success. Creates no folder.

    Continues after an error. Raises InvalidConfig (only for dataDir), IOFailure with all errors.
    """
    ledger = find_ledger(lease_folder(config), alive)
    if ledger:
        with ledger:
            errors = _release(ledger, ledger.held_by(request.container_id, request.ifname))
        _raise_if_any(config, errors)


def _raise_if_any(config: PluginConfig, errors: list[str]) -> None:
    if errors:
        raise IOFailure(f"cannot remove leases in {lease_folder(config)}: {'; '.join(errors)}")


def leased(request: Request, config: PluginConfig) -> tuple[IP, ...]:
    """Returns the attachment's addresses; none if the configuration has no valid dataDir.

    Raises IOFailure.
    """
    try:
        ledger = find_ledger(lease_folder(config), None)
    except InvalidConfig:
        return ()
    if ledger is None:
        return ()
    with ledger:
        return tuple([lease.ip for lease in ledger.held_by(request.container_id, request.ifname)])


def check(request: Request, config: PluginConfig, previous: Result | None) -> None:
    """Checks that the attachment has a lease, and leases for the addresses of `previous` that are in a range set.

    Raises CheckFailed, InvalidConfig, IOFailure.
    """
    settings = parse_settings(config, request.args)
    held = set(leased(request, config))
    if not held:
        raise CheckFailed(f"host-local: Failed to find address added by container {request.container_id}")
    addresses = [config.address.ip for config in previous.ips] if previous else []
    index = SetIndex(settings.sets)
    missing = [ip.text for ip in addresses if index.find(ip) and ip not in held]
    if missing:
        owner = f"{request.container_id}/{request.ifname}"
        raise CheckFailed(f"host-local: not leased to {owner}: {', '.join(missing)}", f"leases: {settings.folder}")


def collect(config: PluginConfig, valid: set[tuple[str, str]] | None, alive: Alive) -> None:
    """Releases every lease whose (container ID, interface name) is not in `valid` (GC); None: releases nothing.

    Older leases, without interface name, are valid with any attachment of their container. Continues after an error.
    Raises InvalidConfig (only for dataDir), IOFailure with all errors.
    """
    ledger = None if valid is None else find_ledger(lease_folder(config), alive)
    if ledger is None or valid is None:
        return
    containers = {container_id for container_id, _ in valid}

    def is_stale(lease: Lease) -> bool:
        is_valid = lease[1:] in valid if lease.ifname else lease.container_id in containers
        return not is_valid and bool(lease.container_id)

    with ledger:
        errors = _release(ledger, filter(is_stale, ledger.read_all()))
    _raise_if_any(config, errors)


def status(config: PluginConfig, alive: Alive) -> None:
    """Checks that ADD could lease an address of every set now.

    Releases the leases of earlier boots, as ADD does: a runtime that gets "exhausted" does not call ADD.
    Raises PluginNotAvailable, InvalidConfig, IOFailure.
    """
    settings = parse_settings(config, {}, of_container=False)
    folder = settings.folder
    import os

    existing = folder
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or "."
    if not os.access(existing, os.W_OK):
        raise PluginNotAvailable(
            f"host-local cannot write to {existing}", "set ipam.dataDir to a folder on a writable disk"
        )
    ledger = find_ledger(folder, alive)
    if ledger is None:
        return
    with ledger:
        full = [range_set.text for range_set in settings.sets if next_free(range_set, None, ledger.first_free) is None]
    if full:
        raise PluginNotAvailable(f"no IP addresses available in range set: {'; '.join(full)}", f"leases: {folder}")
