"""What a user may write for host-local, read into values; all faults at once, each with its JSON path.

Sources in order of their range sets: runtimeConfig.ipRanges, the single range of old (ipam.subnet, ...), ipam.ranges.
"""

from __future__ import annotations

from cni.protocol.address import IP, parse_ip, parse_net
from cni.protocol.fields import ConfigErrors, Fields, objects_of
from cni.protocol.record import Record
from cni.protocol.result import Route, parse_routes
from cni.protocol.versions import at_least
from ipam.ranges import RangeSet, check_set, check_sets, make_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.protocol.plugin_config import PluginConfig
    from ipam.ranges import Range

DATA_DIR = "/var/lib/cni/networks"


class Settings(Record):
    """One configuration of the allocator; `folder` holds the network's leases, `resolv_conf` may be empty."""

    folder: str
    sets: tuple[RangeSet, ...]
    requested: tuple[IP, ...]
    routes: tuple[Route, ...]
    resolv_conf: str


def _folder(config: PluginConfig, ipam: Fields) -> str:
    return f"{ipam.file_path('dataDir') or DATA_DIR}/{config.name}"


def lease_folder(config: PluginConfig) -> str:
    """Where the leases are, whatever else the configuration says: all that giving back needs.

    Raises InvalidConfig: dataDir is no text.
    """
    errors = ConfigErrors()
    folder = _folder(config, config.fields(errors).object("ipam"))
    errors.raise_if_any()
    return folder


def _range(fields: Fields) -> Range | None:
    start, end, gateway = fields.ip("rangeStart"), fields.ip("rangeEnd"), fields.ip("gateway")
    subnet = fields.net("subnet")
    if subnet is None:
        if not fields.raw("subnet"):
            fields.error("subnet", "missing, a range needs one (as in 10.1.2.0/24)")
        return None
    return make_range(subnet, start, end, gateway, fields.error)


def _set(where: str, described: list[Fields]) -> RangeSet:
    return RangeSet(where, tuple([one for one in [_range(fields) for fields in described] if one]))


def _flat_sets(where: str, described: list[Fields]) -> list[RangeSet]:
    """One list of ranges, as go-cni (containerd) sends ipRanges: each family in it becomes a set."""
    ranges = _set(where, described).ranges
    families = dict.fromkeys([one.subnet.family for one in ranges])
    return [RangeSet(where, tuple([one for one in ranges if one.subnet.family == family])) for family in families]


def _sets(fields: Fields, key: str, flat_allowed: bool) -> list[RangeSet]:
    values = fields.items(key)
    if flat_allowed and any(isinstance(value, dict) for value in values):
        return _flat_sets(fields.where(key), fields.objects(key))
    sets = []
    for index, value in enumerate(values):
        where = f"{fields.where(key)}[{index}]"
        if not isinstance(value, list):
            fields.errors.add(where, "expected a list of ranges")
        elif not value:
            fields.errors.add(where, "empty range set")
        else:
            sets.append(_set(where, objects_of(value, where, fields.errors)))
    return sets


def _all_sets(version: str, runtime: Fields, ipam: Fields, *, may_be_none: bool) -> tuple[RangeSet, ...]:
    errors = ipam.errors
    before = errors.count
    sets = _sets(runtime, "ipRanges", flat_allowed=True)
    if ipam.text("subnet"):
        sets.append(_set(ipam.path, [ipam]))
    sets += _sets(ipam, "ranges", flat_allowed=False)
    if not (sets or may_be_none) and errors.count == before:
        errors.add("ipam", "no IP ranges specified")
    sets = [one for one in sets if one.ranges]  # the others are faults already
    for one in sets:
        check_set(one, errors.add)
    check_sets(sets, errors.add)
    families = [one.family for one in sets]
    if len(families) > len(set(families)) and not at_least(version, "0.3.0"):
        errors.add("ipam", f"CNI version {version} does not support more than 1 address per family")
    return tuple(sets)


def _address(text: str, where: str, errors: ConfigErrors) -> IP | None:
    """`ADDRESS` or `ADDRESS/PREFIX`, whose prefix says nothing: the range's counts."""
    try:
        return parse_net(text).ip if "/" in text else parse_ip(text)
    except ValueError as error:
        errors.add(where, str(error))
        return None


def _requested(sources: tuple[Fields, Fields], args: Mapping[str, str]) -> tuple[IP, ...]:
    """Union of `ips` in both sources, args.cni and runtimeConfig, and the IP of CNI_ARGS.

    CONVENTIONS.md: what `args` gives as well is ignored in CNI_ARGS; so is an address of a family that it names.
    """
    errors = sources[0].errors
    found: dict[str, list[IP]] = {}
    for source in sources:
        texts = enumerate(source.texts("ips"))
        parsed = [_address(text, source.where(f"ips[{index}]"), errors) for index, text in texts]
        found[source.path] = [ip for ip in parsed if ip]
    old = _address(args["IP"], "CNI_ARGS.IP", errors) if args.get("IP") else None
    if old and all(ip.family != old.family for ip in found["args.cni"]):
        found["CNI_ARGS"] = [old]
    return tuple([ip for ips in found.values() for ip in ips])


def read_settings(
    config: PluginConfig, args: Mapping[str, str], errors: ConfigErrors, *, of_container: bool = True
) -> Settings:
    """`args` are those of CNI_ARGS. Where there are faults, the settings are not to be used.

    `of_container`: the call is about one, for which the runtime brings ranges if the network has none of its own.
    """
    fields = config.fields(errors)
    waits = not of_container and fields.object("capabilities").flag("ipRanges")
    if fields.raw("ipam") is None:
        errors.add("ipam", "IPAM config missing 'ipam' key")
    ipam, runtime = fields.object("ipam"), fields.object("runtimeConfig")
    return Settings(
        folder=_folder(config, ipam),
        sets=_all_sets(config.version, runtime, ipam, may_be_none=waits)
        if isinstance(fields.raw("ipam"), dict)
        else (),
        requested=_requested((fields.object("args").object("cni"), runtime), args),
        routes=parse_routes(ipam.objects("routes")),
        resolv_conf=ipam.file_path("resolvConf"),
    )


def parse_settings(config: PluginConfig, args: Mapping[str, str], *, of_container: bool = True) -> Settings:
    """Raises InvalidConfig."""
    errors = ConfigErrors()
    settings = read_settings(config, args, errors, of_container=of_container)
    errors.raise_if_any()
    return settings
