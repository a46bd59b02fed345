"""The network configuration of `type: podwire` and `type: bridge`: the reference bridge plugin's keys and defaults."""

from __future__ import annotations

from cni.spec.address import parse_mac
from cni.spec.record import Record
from cni.spec.request import ifname_fault
from cni.spec.result import DNS, parse_dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.spec.fields import Faults, Fields
    from cni.spec.network import Network

DEFAULT_BRIDGE = "cni0"
VLAN_LIMIT = 4094  # IEEE 802.1Q: 4095 is reserved
MTU_LIMIT = 65535  # kernel drivers/net/veth.c: ETH_MAX_MTU
MASQUERADE_BACKENDS = ("", "iptables", "nftables")


class VlanRange(Record):
    """VLAN identifiers from first to last, both included."""

    first: int
    last: int


class NetConf(Record):
    """`mtu` in bytes, 0 for the kernel's choice; `dns` is None where the configuration has no word on it.

    `macs_chosen`: the runtime may choose MAC addresses of this network's containers (capability mac).
    """

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
    enable_dad: bool
    disable_container_interface: bool
    port_isolation: bool
    mac: bytes | None
    macs_chosen: bool
    dns: DNS | None
    ipam_type: str
    notices: tuple[str, ...]

    @property
    def vlan_aware(self) -> bool:
        return bool(self.vlan or self.trunk)


def parse_netconf(network: Network, args: Mapping[str, str], faults: Faults) -> NetConf:
    """The configuration with a default in place of whatever is at fault; the caller decides whether faults count."""
    fields = network.fields(faults)
    backend = fields.text("ipMasqBackend")
    is_default_gateway = fields.flag("isDefaultGateway")
    conf = NetConf(
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
        mac_spoof_check=fields.flag("macspoofchk"),
        enable_dad=fields.flag("enabledad"),
        disable_container_interface=fields.flag("disableContainerInterface"),
        port_isolation=fields.flag("portIsolation"),
        mac=_mac(fields, args),
        macs_chosen=fields.object("capabilities").flag("mac"),
        dns=_dns(fields),
        ipam_type=fields.object("ipam").text("type"),
        notices=_notices(backend),
    )
    if backend not in MASQUERADE_BACKENDS:
        fields.fault("ipMasqBackend", f"{backend!r} is neither iptables nor nftables")
    if conf.hairpin and conf.promiscuous:
        fields.fault("hairpinMode", "cannot be set together with promiscMode")
    if conf.ipam_type and conf.disable_container_interface:
        fields.fault("ipam", "cannot be used together with disableContainerInterface")
    if conf.vlan and conf.is_gateway and ifname_fault(f"{conf.bridge}.{conf.vlan}"):
        fields.fault("bridge", f"{conf.bridge}.{conf.vlan}, the gateway's interface, would be too long a name")
    if "/" in conf.ipam_type:
        fields.fault("ipam.type", "is the name of a program in CNI_PATH, without a folder")
    return conf


def _bridge_name(fields: Fields) -> str:
    name = fields.text("bridge", DEFAULT_BRIDGE)
    fault = ifname_fault(name) if name else "is empty"
    if fault:
        fields.fault("bridge", fault)
        return DEFAULT_BRIDGE
    return name


def _dns(fields: Fields) -> DNS | None:
    dns = fields.object("dns")
    configured = any(dns.raw(key) not in (None, "") for key in DNS._fields)
    parsed = parse_dns(dns)
    return parsed if configured else None


def _mac(fields: Fields, args: Mapping[str, str]) -> bytes | None:
    """Later sources win: CNI_ARGS, args.cni, runtimeConfig."""
    mac = None
    if text := args.get("MAC"):
        try:
            mac = parse_mac(text)
        except ValueError as error:
            fields.faults.add("CNI_ARGS.MAC", str(error))
    for source in (fields.object("args").object("cni"), fields.object("runtimeConfig")):
        mac = source.mac("mac") or mac
    return mac


def _trunk(fields: Fields) -> tuple[VlanRange, ...]:
    ranges = []
    for item in fields.objects("vlanTrunk"):
        single, first, last = (item.optional_integer(key, 1, VLAN_LIMIT) for key in ("id", "minID", "maxID"))
        if single is not None:
            ranges.append(VlanRange(single, single))
        if first is not None and last is not None:
            ranges.append(VlanRange(first, last))
            if first > last:
                item.fault("minID", "is greater than maxID in trunk parameter")
        elif first is not None or last is not None:
            absent = "maxID" if last is None else "minID"
            item.fault(absent, f"minID and maxID should be configured simultaneously, {absent} is missing")
        elif single is None:
            item.fault("id", "a trunk needs id, or minID and maxID")
    return tuple(ranges)


def _notices(backend: str) -> tuple[str, ...]:
    if backend != "iptables":
        return ()
    return ("ipMasqBackend iptables: podwire masquerades in nftables, which serves the same traffic",)
