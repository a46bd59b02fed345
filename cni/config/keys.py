"""Keys of a configuration that nobody reads, and capabilities that nobody serves: told, since they are ignored.

What runtimes and libcni put in is known, and so is all that the reference plugins read, also where podwire does not.
"""

from __future__ import annotations

from cni import INTERFACE, kind_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from cni.protocol.jsontext import JsonValue
    from cni.protocol.plugin_config import PluginConfig

    # A key's name as the field writes it: what may be inside, also of each element where it is a list. None: anything.
    Known: TypeAlias = Mapping[str, "Known | None"]

SHOWN = 10  # keys that are told
OTHERS = "./"  # a key with one of these is an annotation (cni.dev/..., io.kubernetes.cri....)
COMMENTS = ("_", "#", "$", "comment", "description")


def _any(*names: str) -> dict[str, Known | None]:
    return dict.fromkeys(names)


DNS = _any("nameservers", "domain", "search", "options")
COMMON: Known = {
    **_any("cniVersion", "cniVersions", "name", "type", "capabilities", "ipam", "args", "runtimeConfig", "prevResult"),
    **_any("disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins"),
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
PTP = _any("ipMasq", "ipMasqBackend", "mtu", "acceptRA")
BRIDGE: Known = {
    **PTP,
    **_any("bridge", "isGateway", "isDefaultGateway", "forceAddress", "hairpinMode", "promiscMode", "vlan"),
    **_any("preserveDefaultVlan", "macspoofchk", "enabledad", "disableContainerInterface", "portIsolation"),
    "vlanTrunk": _any("id", "minID", "maxID"),
}
KEYS: Mapping[str, Known] = {
    "podwire": {**BRIDGE, **PORTS, **LIMITS, **_any("mode")},
    "bridge": BRIDGE,
    "ptp": PTP,
    "portmap": PORTS,
    "bandwidth": {**LIMITS, **_any("shapedSubnets", "unshapedSubnets")},
    "firewall": _any("backend", "iptablesAdminChainName", "firewalldZone", "ingressPolicy"),
    "tuning": _any("sysctl", "mac", "promisc", "mtu", "allmulti", "txQLen", "dataDir"),
    "loopback": {},
    "flannel": _any("subnetFile", "dataDir", "delegate"),
}
# A key of another plugin's is passed over: whole configurations are handed from one plugin to the next.
EVERYWHERE: Known = {name: inner for keys in (COMMON, *KEYS.values()) for name, inner in keys.items()}
SERVED: Mapping[str, tuple[str, ...]] = {
    "podwire": ("portMappings", "bandwidth", "ips", "mac", "dns", "ipRanges"),
    "bridge": ("ips", "mac", "ipRanges"),
    "ptp": ("ips", "mac", "ipRanges"),
    "portmap": ("portMappings",),
    "bandwidth": ("bandwidth",),
    "tuning": ("mac",),
}
# Capabilities of runtimes and plugins of others; kube-router's list asks portmap for `snat`, which is a key of it.
ELSEWHERE = ("aliases", "infinibandGUID", "deviceID", "cgroupPath", "snat")


def ignored(program: str, config: PluginConfig) -> list[str]:
    """A text for each key and capability of the configuration that has no effect."""
    members = {key.casefold(): value for key, value in config.members.items()}
    if program not in KEYS:  # an allocator gets the whole configuration of another plugin
        return _told(_in_ipam(members, "ipam"))
    found = _of_plugin(program, config.members, "")
    if kind_of(program) == INTERFACE:
        found += _in_ipam(members, "ipam")
        found += _unserved(program, members)
    if program == "flannel" and isinstance(delegate := members.get("delegate"), dict):
        inner = {key.casefold(): value for key, value in delegate.items()}
        kind = inner.get("type", "bridge")
        if isinstance(kind, str) and kind_of(kind) == INTERFACE:
            found += _of_plugin(kind, delegate, "delegate")
            found += _unserved(kind, members)
    elif kind_of(program) != INTERFACE:
        found += _unserved(program, members)
    return _told(found)


def _of_plugin(program: str, members: Mapping[str, JsonValue], path: str) -> list[tuple[str, str, Known]]:
    """Its own keys are those that may have been meant."""
    found = _unknown(members, EVERYWHERE, path)
    own = {**COMMON, **KEYS[program]} if found else {}
    return [(where, key, own if known is EVERYWHERE else known) for where, key, known in found]


def _in_ipam(members: Mapping[str, JsonValue], path: str) -> list[tuple[str, str, Known]]:
    ipam = members.get("ipam")
    if not isinstance(ipam, dict) or not _is_ours(ipam):
        return []
    return _unknown(ipam, HOST_LOCAL, path)


def _is_ours(ipam: Mapping[str, JsonValue]) -> bool:
    kinds = [value for key, value in ipam.items() if key.casefold() == "type"]
    return not kinds or kinds[-1] in ("", "host-local")


def _unknown(members: Mapping[str, JsonValue], known: Known, path: str) -> list[tuple[str, str, Known]]:
    """(where, the key, what would be known there)."""
    found = []
    for key, value in members.items():
        where = f"{path}.{key}" if path else key
        name = key if key in known else _in_any_case(key, known)
        if not name:
            remark = any(letter in key for letter in OTHERS) or key.casefold().startswith(COMMENTS)
            if value is not None and not remark:
                found.append((where, key, known))
        elif (inner := known[name]) is not None:
            for place, one in _objects(value, where):
                found += _unknown(one, inner, place)
    return found


def _in_any_case(key: str, known: Known) -> str:
    """Returns the known name; empty if there is none. Most keys are written as they are known, and need no search."""
    folded = key.casefold()
    return next((name for name in known if name.casefold() == folded), "")


def _objects(value: JsonValue, path: str) -> list[tuple[str, dict[str, JsonValue]]]:
    """The object, or those of a list, or of lists in it."""
    if isinstance(value, dict):
        return [(path, value)]
    if not isinstance(value, list):
        return []
    return [found for index, one in enumerate(value) for found in _objects(one, f"{path}[{index}]")]


def _unserved(program: str, members: Mapping[str, JsonValue]) -> list[tuple[str, str, Known]]:
    """Capabilities that are asked of a plugin which does not serve them; an allocator of others may."""
    asked, ipam = members.get("capabilities"), members.get("ipam")
    if not isinstance(asked, dict) or (isinstance(ipam, dict) and not _is_ours(ipam)):
        return []
    served = SERVED.get(program, ())
    names = {name.casefold() for name in (*served, *ELSEWHERE)}
    return [
        (f"capabilities.{name}", name, _any(*served))
        for name, wanted in asked.items()
        if wanted is True and name.casefold() not in names and not any(letter in name for letter in OTHERS)
    ]


def _told(found: list[tuple[str, str, Known]]) -> list[str]:
    if not found:
        return []
    from cni.config.spelling import nearest

    texts = []
    for where, key, known in found[:SHOWN]:
        meant = nearest(key, known)
        kind = "this capability is not served here" if where.startswith("capabilities.") else "unknown key"
        texts.append(f"{where}: {kind}, ignored{f' (did you mean {meant}?)' if meant else ''}")
    return [*texts, f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else texts
