"""The network configuration of `type: podwire`, and of `bridge` and `ptp`: the reference plugins' keys and defaults."""

from __future__ import annotations

from cni import PODWIRE, PTP, reference_of
from cni.config.bandwidth import Bandwidth, has_rates, parse_bandwidth
from cni.config.portmap import Ports, parse_ports
from cni.protocol.address import IPV6_MTU, MTU_LIMIT, parse_mac
from cni.protocol.record import Record
from cni.protocol.request import ifname_error, is_plugin_name
from cni.protocol.result import DNS, parse_dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.config.vlan import VlanRange
    from cni.protocol.fields import ConfigErrors, Fields
    from cni.protocol.plugin_config import PluginConfig

PTP_KEYS = (
    *("ipmasq", "ipmasqbackend", "mtu", "dns", "ipam", "args", "runtimeconfig", "capabilities"),
    *("acceptra", "ipspoofcheck"),
)
DEFAULT_BRIDGE = "cni0"
POLICY_WAIT, POLICY_WAIT_LIMIT = 2, 60  # seconds
VLAN_LIMIT = 4094  # IEEE 802.1Q: 4095 is reserved
MASQUERADE_BACKENDS = ("", "iptables", "nftables")
MODES = ("", "bridged", "routed")
BRIDGED_ONLY = ("vlan", "vlanTrunk", "hairpinMode", "promiscMode", "portIsolation", "macspoofchk")


class NetConf(Record):
    """The plugin's configuration; `mtu` in bytes, 0 for the kernel's choice; `dns` is None if it is not configured.

    `mac_capability`: the runtime may choose the containers' MAC addresses (capability mac). `may_map_ports`,
    `may_limit_bandwidth`: it may map ports, limit the bandwidth. `accept`: the containers' traffic is accepted if the
    host's firewall drops forwarded packets. `policy_wait`: so many seconds podwired may take to judge a new pod.
    `accept_ra`: a container with an IPv6 address also accepts router advertisements. `ip_spoof_check`: None if it is
    not configured.
    """

    routed: bool
    bridge: str
    is_gateway: bool
    is_default_gateway: bool
    force_address: bool
    ip_masq: bool
    mtu: int
    hairpin: bool
    promiscuous: bool
    vlan: int
    trunk: tuple[VlanRange, ...]
    preserve_default_vlan: bool
    mac_spoof_check: bool
    ip_spoof_check: bool | None
    enable_dad: bool
    accept_ra: bool
    disable_container_interface: bool
    port_isolation: bool
    mac: bytes | None
    mac_capability: bool
    dns: DNS | None
    ports: Ports
    may_map_ports: bool
    bandwidth: Bandwidth
    may_limit_bandwidth: bool
    accept: bool
    policy_wait: int
    ipam_type: str
    notices: tuple[str, ...]

    @property
    def vlan_aware(self) -> bool:
        return bool(self.vlan or self.trunk)


def parse_netconf(
    config: PluginConfig, args: Mapping[str, str], errors: ConfigErrors, program: str = PODWIRE
) -> NetConf:
    """Parses the configuration; an invalid value is an error, and has its default. The caller checks the errors.

    `program`: bridge and ptp have the keys of the reference plugins of these names; any other name is podwire.
    """
    fields = _of_program(config, program).fields(errors)
    is_podwire = not reference_of(program)
    backend = fields.text("ipMasqBackend")
    is_default_gateway = fields.flag("isDefaultGateway")
    mode = fields.text("mode") if is_podwire else ""
    capabilities = fields.object("capabilities")
    routed = program == PTP or mode == "routed"
    conf = NetConf(
        routed=routed,
        bridge=_bridge_name(fields),
        is_gateway=fields.flag("isGateway") or is_default_gateway,
        is_default_gateway=is_default_gateway,
        force_address=fields.flag("forceAddress"),
        ip_masq=fields.flag("ipMasq"),
        mtu=fields.integer("mtu", 0, MTU_LIMIT),
        hairpin=fields.flag("hairpinMode"),
        promiscuous=fields.flag("promiscMode"),
        vlan=fields.integer("vlan", 0, VLAN_LIMIT),
        trunk=_trunk(fields),
        preserve_default_vlan=fields.flag("preserveDefaultVlan"),
        mac_spoof_check=fields.flag("macspoofchk") and not routed,
        ip_spoof_check=fields.flag("ipSpoofCheck") if fields.raw("ipSpoofCheck") is not None else None,
        enable_dad=fields.flag("enabledad"),
        accept_ra=fields.flag("acceptRA"),
        disable_container_interface=fields.flag("disableContainerInterface"),
        port_isolation=fields.flag("portIsolation"),
        mac=_mac(fields, args),
        mac_capability=capabilities.flag("mac"),
        dns=(_runtime_dns(fields) if is_podwire else None) or _dns(fields),
        ports=parse_ports(fields) if is_podwire else Ports(),
        may_map_ports=is_podwire and capabilities.flag("portMappings"),
        bandwidth=parse_bandwidth(fields) if is_podwire else Bandwidth(),
        may_limit_bandwidth=is_podwire and (capabilities.flag("bandwidth") or has_rates(fields)),
        accept=is_podwire,
        policy_wait=fields.integer("policyWait", 0, POLICY_WAIT_LIMIT, POLICY_WAIT) if is_podwire else POLICY_WAIT,
        ipam_type=fields.object("ipam").text("type"),
        notices=_notices(backend, fields, is_podwire),
    )
    _validate(fields, conf, backend, mode, is_podwire)
    return conf


def mtu_error(conf: NetConf, families: Iterable[int]) -> str:
    """Returns the error of the MTU for addresses of these families; empty if it is valid."""
    if 6 not in families or not 0 < conf.mtu < IPV6_MTU:
        return ""
    return (
        f"{conf.mtu} is too small for IPv6, of which ipam gives addresses: the kernel has no IPv6 on an interface with"
        f" an MTU below {IPV6_MTU} (RFC 8200)"
    )


def _of_program(config: PluginConfig, program: str) -> PluginConfig:
    """Returns the configuration with the keys of the program: ptp has few."""
    if program != PTP:
        return config
    return config._replace(members={key: value for key, value in config.members.items() if key.lower() in PTP_KEYS})


def _validate(fields: Fields, conf: NetConf, backend: str, mode: str, is_podwire: bool) -> None:
    """Adds errors for keys that exclude each other, and for invalid names."""
    _validate_mode(fields, mode)
    if is_podwire and not conf.routed and _is_typeless(fields):
        fields.error("ipam.type", "missing, so that no plugin would allocate the addresses (did you mean host-local?)")
    if backend not in MASQUERADE_BACKENDS:
        fields.error("ipMasqBackend", f"{backend!r} is neither iptables nor nftables")
    if conf.hairpin and conf.promiscuous:
        fields.error("hairpinMode", "cannot be set together with promiscMode")
    if conf.ipam_type and conf.disable_container_interface:
        fields.error("ipam", "cannot be used together with disableContainerInterface")
    if conf.ip_spoof_check and not conf.ipam_type:
        fields.error("ipSpoofCheck", "needs ipam: a container may send from the addresses that ADD gives it")
    if conf.vlan and conf.is_gateway and ifname_error(f"{conf.bridge}.{conf.vlan}"):
        fields.error("bridge", f"{conf.bridge}.{conf.vlan}, the gateway's interface, would be too long a name")
    if conf.ipam_type and not is_plugin_name(conf.ipam_type):
        fields.error("ipam.type", "must be the name of a program in CNI_PATH, without a folder")


def _validate_mode(fields: Fields, mode: str) -> None:
    if mode not in MODES:
        fields.error("mode", f"{mode!r} is neither bridged nor routed")
    if mode == "routed":
        for key in BRIDGED_ONLY:
            if fields.raw(key):
                fields.error(key, "needs a bridge, which mode routed does not have")


def _bridge_name(fields: Fields) -> str:
    name = fields.text("bridge", DEFAULT_BRIDGE)
    error = ifname_error(name) if name else "is empty"
    if error:
        fields.error("bridge", error)
        return DEFAULT_BRIDGE
    return name


def _dns(fields: Fields) -> DNS | None:
    dns = fields.object("dns")
    configured = any(dns.raw(key) not in (None, "") for key in DNS._fields)
    parsed = parse_dns(dns)
    return parsed if configured else None


def _runtime_dns(fields: Fields) -> DNS | None:
    """Returns the DNS of the capability dns, whose keys have other names; None if it is empty."""
    runtime = fields.object("runtimeConfig").object("dns")
    dns = DNS(runtime.texts("servers"), search=runtime.texts("searches"), options=runtime.texts("options"))
    return dns if any(dns) else None


def _mac(fields: Fields, args: Mapping[str, str]) -> bytes | None:
    """Returns the MAC address of CNI_ARGS, args.cni or runtimeConfig: the later source wins."""
    mac = None
    if text := args.get("MAC"):
        try:
            mac = parse_mac(text)
        except ValueError as error:
            fields.errors.add("CNI_ARGS.MAC", str(error))
    for source in (fields.object("args").object("cni"), fields.object("runtimeConfig")):
        mac = source.mac("mac") or mac
    return mac


def _trunk(fields: Fields) -> tuple[VlanRange, ...]:
    if not (trunk := fields.objects("vlanTrunk")):
        return ()
    from cni.config.vlan import parse_trunk

    return parse_trunk(trunk)


def _is_typeless(fields: Fields) -> bool:
    """True if `ipam` has keys, but no type: addresses are expected, and no plugin allocates them."""
    ipam = fields.raw("ipam")
    keys = {key.casefold() for key, value in ipam.items() if value not in (None, "")} if isinstance(ipam, dict) else ()
    return bool(keys) and "type" not in keys


def _notices(backend: str, fields: Fields, is_podwire: bool) -> tuple[str, ...]:
    notices = []
    if backend == "iptables":
        notices.append("ipMasqBackend iptables: podwire masquerades in nftables, which serves the same traffic")
    if not is_podwire and _is_typeless(fields):
        notices.append("ipam: has no type, so the container gets no address (did you mean host-local?)")
    return tuple(notices)
