"""Notices about unknown keys of a configuration and capabilities that are not supported, which have no effect.

Known are the keys of runtimes and libcni, and all keys of the reference plugins, also those that podwire ignores.
"""

from __future__ import annotations

from cni import INTERFACE, kind_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from cni.protocol.jsontext import JsonValue
    from cni.protocol.plugin_config import PluginConfig

    # Key as the reference spells it -> the keys inside, of a list: of each element. None: any.
    Known: TypeAlias = Mapping[str, "Known | None"]

SHOWN_LIMIT = 10  # keys that are reported
ANNOTATION_CHARACTERS = "./"  # a key with one of these is an annotation (cni.dev/..., io.kubernetes.cri....)
COMMENTS = ("_", "#", "$", "comment", "description")


def _any(*names: str) -> dict[str, Known | None]:
    return dict.fromkeys(names)


DNS = _any("nameservers", "domain", "search", "options")
COMMON: Known = {
    **_any("cniVersion", "cniVersions", "name", "type", "capabilities", "ipam", "args", "runtimeConfig", "prevResult"),
    **_any("disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins", "logFile", "logLevel"),
    **_any("deviceID", "pciBusID", "resourceName", "aliases"),  # multus, podman
    **_any("addIf", "auto-mtu"),  # kubenet, kube-router
    "dns": DNS,
}
RANGE = _any("subnet", "rangeStart", "rangeEnd", "gateway")
ROUTE = _any("dst", "gw", "mtu", "advmss", "priority", "table", "scope")
HOST_LOCAL: Known = {
    **_any("type", "name", "dataDir", "resolvConf"),
    **RANGE,
    "ranges": RANGE,
    "routes": ROUTE,
}
LIMITS = _any("ingressRate", "ingressBurst", "egressRate", "egressBurst")
PORTS = _any("snat", "masqAll", "markMasqBit", "externalSetMarkChain", "conditionsV4", "conditionsV6", "backend")
PTP = _any("ipMasq", "ipMasqBackend", "mtu", "acceptRA", "ipSpoofCheck")
BRIDGE: Known = {
    **PTP,
    **_any("bridge", "isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "promiscMode", "vlan"),
    **_any("preserveDefaultVlan", "macspoofchk", "enabledad", "disableContainerInterface", "portIsolation"),
    "vlanTrunk": _any("id", "minID", "maxID"),
}
KEYS: Mapping[str, Known] = {
    "podwire": {**BRIDGE, **PORTS, **LIMITS, **_any("mode", "policyWait")},
    "bridge": BRIDGE,
    "ptp": PTP,
    "portmap": PORTS,
    "bandwidth": {**LIMITS, **_any("shapedSubnets", "unshapedSubnets")},
    "firewall": _any("backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"),
    "tuning": _any("sysctl", "mac", "promisc", "mtu", "allmulti", "txQLen", "dataDir"),
    "loopback": {},
    "flannel": _any("subnetFile", "dataDir", "delegate"),
}
# Keys of other plugins are not reported: whole configurations are passed from one plugin to the next.
EVERYWHERE: Known = {name: inner for keys in (COMMON, *KEYS.values()) for name, inner in keys.items()}
SERVED: Mapping[str, tuple[str, ...]] = {
    "podwire": ("portMappings", "bandwidth", "ips", "mac", "dns", "ipRanges"),
    "bridge": ("ips", "mac", "ipRanges"),
    "ptp": ("ips", "mac", "ipRanges"),
    "portmap": ("portMappings",),
    "bandwidth": ("bandwidth",),
    "tuning": ("mac",),
}
# Capabilities of runtimes and third-party plugins; kube-router's list asks portmap for `snat`, one of its keys.
FOREIGN_CAPABILITIES = ("aliases", "infinibandGUID", "deviceID", "cgroupPath", "snat")


def ignored(program: str, config: PluginConfig) -> list[str]:
    """Returns a text for each key and capability of the configuration that has no effect; for many the first ones."""
    return _notices(unknown_keys(program, config))


def unknown_keys(program: str, config: PluginConfig) -> list[tuple[str, str, Known]]:
    """Returns (path, key, known keys at that place) for each key and capability that has no effect."""
    members = {key.casefold(): value for key, value in config.members.items()}
    if program not in KEYS:  # an allocator gets the whole configuration of the plugin that calls it
        return _unknown_in_ipam(members, "ipam")
    unknown = _unknown_of_plugin(program, config.members, "")
    if kind_of(program) == INTERFACE:
        unknown += _unknown_in_ipam(members, "ipam")
        unknown += _unserved(program, members)
    if program == "flannel" and isinstance(delegate := members.get("delegate"), dict):
        inner = {key.casefold(): value for key, value in delegate.items()}
        kind = inner.get("type", "bridge")
        if isinstance(kind, str) and kind_of(kind) == INTERFACE:
            unknown += _unknown_of_plugin(kind, delegate, "delegate")
            unknown += _unserved(kind, members)
    elif kind_of(program) != INTERFACE:
        unknown += _unserved(program, members)
    return unknown


def _unknown_of_plugin(program: str, members: Mapping[str, JsonValue], path: str) -> list[tuple[str, str, Known]]:
    """Returns (path, key, known keys); suggestions come from the program's own keys."""
    unknown = _unknown(members, EVERYWHERE, path)
    own = {**COMMON, **KEYS[program]} if unknown else {}
    return [(key_path, key, own if known is EVERYWHERE else known) for key_path, key, known in unknown]


def _unknown_in_ipam(members: Mapping[str, JsonValue], path: str) -> list[tuple[str, str, Known]]:
    ipam = members.get("ipam")
    if not isinstance(ipam, dict) or not _is_host_local(ipam):
        return []
    return _unknown(ipam, HOST_LOCAL, path)


def _is_host_local(ipam: Mapping[str, JsonValue]) -> bool:
    kinds = [value for key, value in ipam.items() if key.casefold() == "type"]
    return not kinds or kinds[-1] in ("", "host-local")


def _unknown(members: Mapping[str, JsonValue], known: Known, path: str) -> list[tuple[str, str, Known]]:
    """Returns (path, key, known keys at that place)."""
    unknown = []
    for key, value in members.items():
        key_path = f"{path}.{key}" if path else key
        name = key if key in known else _in_any_case(key, known)
        if not name:
            comment = any(letter in key for letter in ANNOTATION_CHARACTERS) or key.casefold().startswith(COMMENTS)
            if value is not None and not comment:
                unknown.append((key_path, key, known))
        elif (inner := known[name]) is not None:
            for object_path, inner_members in _objects(value, key_path):
                unknown += _unknown(inner_members, inner, object_path)
    return unknown


def _in_any_case(key: str, known: Known) -> str:
    """Returns the known key in its spelling; empty if there is none. Only keys in another case need this search."""
    folded = key.casefold()
    return next((name for name in known if name.casefold() == folded), "")


def _objects(value: JsonValue, path: str) -> list[tuple[str, dict[str, JsonValue]]]:
    """Returns (path, object) of the value, or of the elements of a list, also of nested lists."""
    if isinstance(value, dict):
        return [(path, value)]
    if not isinstance(value, list):
        return []
    return [entry for index, element in enumerate(value) for entry in _objects(element, f"{path}[{index}]")]


def _unserved(program: str, members: Mapping[str, JsonValue]) -> list[tuple[str, str, Known]]:
    """Returns the capabilities that the plugin does not serve; a third-party allocator may serve them."""
    requested, ipam = members.get("capabilities"), members.get("ipam")
    if not isinstance(requested, dict) or (isinstance(ipam, dict) and not _is_host_local(ipam)):
        return []
    served = SERVED.get(program, ())
    names = {name.casefold() for name in (*served, *FOREIGN_CAPABILITIES)}
    return [
        (f"capabilities.{name}", name, _any(*served))
        for name, value in requested.items()
        if value is True
        and name.casefold() not in names
        and not any(letter in name for letter in ANNOTATION_CHARACTERS)
    ]


def notice(key_path: str, key: str, known: Known) -> str:
    """Returns the text for a key that has no effect, with the known key that it resembles."""
    from cni.config.spelling import nearest

    suggestion = nearest(key, known)
    kind = "this capability is not supported" if key_path.startswith("capabilities.") else "unknown key"
    return f"{key_path}: {kind}, ignored{f' (did you mean {suggestion}?)' if suggestion else ''}"


def _notices(unknown: list[tuple[str, str, Known]]) -> list[str]:
    texts = [notice(*each) for each in unknown[:SHOWN_LIMIT]]
    return [*texts, f"and {len(unknown) - SHOWN_LIMIT} more"] if len(unknown) > SHOWN_LIMIT else texts
