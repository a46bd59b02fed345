"""The allocator's verbs, for the plugin in the same process and for the program host-local alike.

`alive` is the caller's: it knows whether an interface of a lease's owner, or one with its address, is on this machine.
"""

from __future__ import annotations

from cni.protocol.errors import CheckFailed, InvalidConfig, IOFailure, OperationFailed, PluginNotAvailable, TryAgain
from cni.protocol.result import DNS, Result
from ipam.allocate import assign, next_free
from ipam.config import lease_folder, parse_settings, read_settings
from ipam.lease import Lease
from ipam.ledger import find_ledger, open_ledger
from ipam.ranges import Holders

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

__all__ = ["Lease", "add", "check", "collect", "delete", "errors", "leased", "status"]


def errors(request: Request, config: PluginConfig, found: ConfigErrors) -> set[int]:
    """Gather what is wrong with the allocator's part of a configuration. Returns the families of its ranges."""
    settings = read_settings(config, request.args, found, of_container=request.command != "STATUS")
    return {one.subnet.family for each in settings.sets for one in each.ranges}


def add(request: Request, config: PluginConfig, alive: Alive) -> Result:
    """Lease one address of every range set: ips (without interface index), routes, dns.

    Raises InvalidConfig, IOFailure (disk, resolvConf), TryAgain (a set is exhausted, a requested address taken),
    OperationFailed (the attachment holds one already). After an error nothing of this call is leased.
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
        for position, one in enumerate(sets):
            requested = wanted[position]
            if requested:
                ips.append(_take_requested(ledger, request, requested, one, position))
            else:
                _refuse_duplicate(held, request, position)
                ips.append(_take_next(ledger, request, one, position))
    except BaseException:
        _give_back(ledger, [_lease(request, config.address.ip) for config in ips])
        raise
    return tuple(ips)


def _give_back(ledger: Ledger, leases: Iterable[Lease]) -> list[str]:
    """Goes on after an error; returns what went wrong."""
    errors = []
    for lease in leases:
        try:
            ledger.give_back(lease)
        except OSError as error:
            errors.append(f"{lease.ip.text}: {error.strerror}")
    return errors


def _take_requested(ledger: Ledger, request: Request, config: IPConfig, one: RangeSet, position: int) -> IPConfig:
    ip = config.address.ip
    if not ledger.take(_lease(request, ip), position):
        error = f"requested IP address {ip.text} is not available in range set {one.text}"
        raise TryAgain(f"failed to allocate for range {position}: {error}")
    return config


def _take_next(ledger: Ledger, request: Request, one: RangeSet, position: int) -> IPConfig:
    while config := next_free(one, ledger.last(position), ledger.first_free):
        if ledger.take(_lease(request, config.address.ip), position):
            return config
    error = f"no IP addresses available in range set: {one.text}"
    raise TryAgain(
        f"failed to allocate for range {position}: {error}", "the runtime's GC frees leases of containers that are gone"
    )


def _held_in(ledger: Ledger, request: Request, sets: Sequence[RangeSet]) -> dict[int, IP]:
    """Returns the attachment's addresses by the number of the range set; old leases without interface count."""
    holders, owner = Holders(sets), request.container_id
    found: dict[int, IP] = {}
    for lease in ledger.held(owner, request.ifname) + ledger.held(owner, ""):
        if place := holders.find(lease.ip):
            found.setdefault(place[0], lease.ip)
    return found


def _refuse_duplicate(held: dict[int, IP], request: Request, position: int) -> None:
    owner, ip = request.container_id, held.get(position)
    if ip is not None:
        error = f"{ip.text} has been allocated to {owner}, duplicate allocation is not allowed"
        raise OperationFailed(
            f"failed to allocate for range {position}: {error}", f"DEL {owner}/{request.ifname} before another ADD"
        )


def delete(request: Request, config: PluginConfig, alive: Alive) -> None:
    """Give back all that the attachment holds; holding nothing is success. Creates no folder.

    Goes on after an error. Raises InvalidConfig (only for dataDir), IOFailure with all errors.
    """
    ledger = find_ledger(lease_folder(config), alive)
    if ledger:
        with ledger:
            errors = _give_back(ledger, ledger.held_by(request.container_id, request.ifname))
        _refuse(config, errors)


def _refuse(config: PluginConfig, errors: list[str]) -> None:
    if errors:
        raise IOFailure(f"cannot give back leases in {lease_folder(config)}: {'; '.join(errors)}")


def leased(request: Request, config: PluginConfig) -> tuple[IP, ...]:
    """The addresses that the attachment holds now; none where the configuration does not say where leases are.

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
    """The attachment holds a lease, and every address of `previous` that lies in a range set.

    Raises CheckFailed, InvalidConfig, IOFailure.
    """
    settings = parse_settings(config, request.args)
    held = set(leased(request, config))
    if not held:
        raise CheckFailed(f"host-local: Failed to find address added by container {request.container_id}")
    told = [config.address.ip for config in previous.ips] if previous else []
    holders = Holders(settings.sets)
    ours = [ip for ip in told if holders.find(ip)]
    missing = [ip.text for ip in ours if ip not in held]
    if missing:
        owner = f"{request.container_id}/{request.ifname}"
        raise CheckFailed(f"host-local: not leased to {owner}: {', '.join(missing)}", f"leases: {settings.folder}")


def collect(config: PluginConfig, valid: set[tuple[str, str]] | None, alive: Alive) -> None:
    """GC: give back every lease whose (container ID, interface name) is not in `valid`; None says nothing.

    Leases of old, without interface name, live as long as any attachment of their container. Goes on after an error.
    Raises InvalidConfig (only for dataDir), IOFailure with all errors.
    """
    ledger = None if valid is None else find_ledger(lease_folder(config), alive)
    if ledger is None or valid is None:
        return
    containers = {container_id for container_id, _ in valid}

    def stale(lease: Lease) -> bool:
        known = lease[1:] in valid if lease.ifname else lease.container_id in containers
        return not known and bool(lease.container_id)

    with ledger:
        errors = _give_back(ledger, filter(stale, ledger.read_all()))
    _refuse(config, errors)


def status(config: PluginConfig, alive: Alive) -> None:
    """ADD could lease an address of every set now.

    Gives back what earlier boots left, as ADD does: a runtime that is told "exhausted" never comes to ADD.
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
        full = [one.text for one in settings.sets if next_free(one, None, ledger.first_free) is None]
    if full:
        raise PluginNotAvailable(f"no IP addresses available in range set: {'; '.join(full)}", f"leases: {folder}")
