"""The configuration of host-local as values; all errors are collected, each with its JSON path.

Range sets in order: runtimeConfig.ipRanges, the older single range (ipam.subnet, ...), ipam.ranges.
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
    """The allocator's configuration; `folder` holds the network's leases, `resolv_conf` may be empty."""

    folder: str
    sets: tuple[RangeSet, ...]
    requested: tuple[IP, ...]
    routes: tuple[Route, ...]
    resolv_conf: str


def _folder(config: PluginConfig, ipam: Fields) -> str:
    return f"{ipam.file_path('dataDir') or DATA_DIR}/{config.name}"


def lease_folder(config: PluginConfig) -> str:
    """Returns the folder of the leases, whatever else the configuration says: a release needs no more.

    Raises InvalidConfig: dataDir is not a valid path.
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


def _set(path: str, objects: list[Fields]) -> RangeSet:
    return RangeSet(path, tuple([part for part in [_range(fields) for fields in objects] if part]))


def _flat_sets(path: str, objects: list[Fields]) -> list[RangeSet]:
    """Returns a set for each family in a list of ranges, the form in which go-cni (containerd) sends ipRanges."""
    ranges = _set(path, objects).ranges
    families = dict.fromkeys([part.subnet.family for part in ranges])
    return [RangeSet(path, tuple([part for part in ranges if part.subnet.family == family])) for family in families]


def _sets(fields: Fields, key: str, flat_allowed: bool) -> list[RangeSet]:
    values = fields.items(key)
    if flat_allowed and any(isinstance(value, dict) for value in values):
        return _flat_sets(fields.path_of(key), fields.objects(key))
    sets = []
    for index, value in enumerate(values):
        path = f"{fields.path_of(key)}[{index}]"
        if not isinstance(value, list):
            fields.errors.add(path, "expected a list of ranges")
        elif not value:
            fields.errors.add(path, "empty range set")
        else:
            sets.append(_set(path, objects_of(value, path, fields.errors)))
    return sets


def _all_sets(version: str, runtime: Fields, ipam: Fields, *, optional: bool) -> tuple[RangeSet, ...]:
    errors = ipam.errors
    previous_count = errors.count
    sets = _sets(runtime, "ipRanges", flat_allowed=True)
    if ipam.text("subnet"):
        sets.append(_set(ipam.path, [ipam]))
    sets += _sets(ipam, "ranges", flat_allowed=False)
    if not (sets or optional) and errors.count == previous_count:
        errors.add("ipam", "no IP ranges specified")
    sets = [range_set for range_set in sets if range_set.ranges]  # empty ones are errors already
    for range_set in sets:
        check_set(range_set, errors.add)
    check_sets(sets, errors.add)
    families = [range_set.family for range_set in sets]
    if len(families) > len(set(families)) and not at_least(version, "0.3.0"):
        errors.add("ipam", f"CNI version {version} does not support more than 1 address per family")
    return tuple(sets)


def _address(text: str, path: str, errors: ConfigErrors) -> IP | None:
    """Parses an address, or an address with a prefix, which is ignored: the range has one."""
    try:
        return parse_net(text).ip if "/" in text else parse_ip(text)
    except ValueError as error:
        errors.add(path, str(error))
        return None


def _requested(sources: tuple[Fields, Fields], args: Mapping[str, str]) -> tuple[IP, ...]:
    """Returns the `ips` of both sources, args.cni and runtimeConfig, and the IP of CNI_ARGS.

    CONVENTIONS.md: CNI_ARGS is ignored for a key that `args` has too; here for an address of the same family.
    """
    errors = sources[0].errors
    addresses: dict[str, list[IP]] = {}
    for source in sources:
        texts = enumerate(source.texts("ips"))
        parsed = [_address(text, source.path_of(f"ips[{index}]"), errors) for index, text in texts]
        addresses[source.path] = [ip for ip in parsed if ip]
    single = _address(args["IP"], "CNI_ARGS.IP", errors) if args.get("IP") else None
    if single and all(ip.family != single.family for ip in addresses["args.cni"]):
        addresses["CNI_ARGS"] = [single]
    return tuple([ip for ips in addresses.values() for ip in ips])


def read_settings(
    config: PluginConfig, args: Mapping[str, str], errors: ConfigErrors, *, of_container: bool = True
) -> Settings:
    """Parses the configuration. The settings must not be used if there are errors.

    `args`: the pairs of CNI_ARGS. `of_container`: False for a verb without a container, for which the runtime does not
    send the ranges of the capability ipRanges.
    """
    fields = config.fields(errors)
    expects_ranges = not of_container and fields.object("capabilities").flag("ipRanges")
    if fields.raw("ipam") is None:
        errors.add("ipam", "IPAM config missing 'ipam' key")
    ipam, runtime = fields.object("ipam"), fields.object("runtimeConfig")
    return Settings(
        folder=_folder(config, ipam),
        sets=_all_sets(config.version, runtime, ipam, optional=expects_ranges)
        if isinstance(fields.raw("ipam"), dict)
        else (),
        requested=_requested((fields.object("args").object("cni"), runtime), args),
        routes=parse_routes(ipam.objects("routes")),
        resolv_conf=ipam.file_path("resolvConf"),
    )


def parse_settings(config: PluginConfig, args: Mapping[str, str], *, of_container: bool = True) -> Settings:
    """Parses the configuration. Raises InvalidConfig."""
    errors = ConfigErrors()
    settings = read_settings(config, args, errors, of_container=of_container)
    errors.raise_if_any()
    return settings
