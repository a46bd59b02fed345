"""The link feature: the bridge, the veth pair that joins the container to it, and how the port behaves."""

from __future__ import annotations

from cni.plan.alias import Alias
from cni.plan.operations import Bridge, BridgePort, IgnoreAdvertisements, Veth
from cni.protocol.address import IP, Net, mac_text
from cni.protocol.owner import mac_of
from cni.protocol.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation

CONTAINER_INDEX = 2  # the container's place among the interfaces
LINK_LOCAL_PREFIX = b"\xfe\x80" + bytes(6)


def bridge_mac(attachment: Attachment) -> bytes:
    """Returns the bridge's MAC address, or the one that it gets: fixed, since it would else be its lowest port's."""
    return attachment.facts.bridge_mac or _new_bridge_mac(attachment)


def _new_bridge_mac(attachment: Attachment) -> bytes:
    """Returns the MAC address of a bridge that podwire makes; a bridge that has it needs no other."""
    return mac_of("bridge", attachment.facts.node, attachment.conf.bridge)


def link_local(mac: bytes) -> Net:
    """Returns the link-local address of an interface with this MAC address (RFC 4291, appendix A)."""
    identifier = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return Net(IP.from_packed(LINK_LOCAL_PREFIX + identifier), 64)


def interfaces(attachment: Attachment) -> tuple[Interface, ...]:
    names, owner = attachment.names, attachment.owner
    return (
        Interface(attachment.conf.bridge, mac_text(bridge_mac(attachment))),
        Interface(names.host_interface, mac_text(names.host_mac)),
        Interface(owner.ifname, mac_text(names.container_mac), attachment.sandbox),
    )


def operations(attachment: Attachment) -> tuple[Operation, ...]:
    conf, names, owner = attachment.conf, attachment.names, attachment.owner
    operations: list[Operation] = [
        Bridge(conf.bridge, _new_bridge_mac(attachment), conf.mtu, conf.promiscuous, conf.vlan_aware),
        Veth(
            host_interface=names.host_interface,
            host_mac=names.host_mac,
            ifname=owner.ifname,
            mac=names.container_mac,
            mtu=conf.mtu,
            bridge=conf.bridge,
            alias=alias_of(attachment).text,
            group=attachment.facts.group,
        ),
    ]
    if attachment.facts.ipv6:
        operations += [IgnoreAdvertisements(conf.bridge), IgnoreAdvertisements(names.host_interface)]
    # Through its own host port a container's frames come back to where they came from (kernel br_netfilter_hooks.c).
    hairpin = conf.hairpin or (bool(conf.ports.mappings) and not conf.promiscuous)
    isolated = conf.port_isolation or attachment.facts.isolated
    if hairpin or isolated:
        operations.append(BridgePort(names.host_interface, hairpin, isolated))
    if attachment.facts.pod is not None and conf.is_gateway and not conf.port_isolation:
        from cni.plan.policy import PolicyPort

        operations.append(PolicyPort(names.host_interface, hairpin, isolated, alias_of(attachment)))
    if conf.vlan_aware:
        from cni.plan import vlan

        operations += vlan.port_operations(attachment)
    if conf.mac_spoof_check:
        from cni.plan.spoofcheck import SpoofGuard

        operations.append(SpoofGuard(names.host_interface, names.allowed_mac or names.container_mac, owner.label))
    if conf.ip_spoof_check:
        from cni.plan import sourcecheck

        operations.append(sourcecheck.operation(attachment))
    return tuple(operations)


def alias_of(attachment: Attachment) -> Alias:
    """Returns the alias, for DEL and for restoring flushed rules; ports with conditions are omitted."""
    conf = attachment.conf
    ports = conf.ports if not conf.ports.special else conf.ports._replace(mappings=())
    recorded = attachment.facts.pod is not None and bool(attachment.lease.ips)
    return Alias(
        label=attachment.owner.label,
        allowed_mac=attachment.names.container_mac if conf.mac_spoof_check else None,
        addresses=attachment.addresses if conf.ip_masq or conf.ip_spoof_check or ports.mappings or recorded else (),
        ip_masq=conf.ip_masq and bool(attachment.lease.ips),
        further_sources=_further_sources(attachment) if conf.ip_spoof_check else None,
        ports_masqueraded=ports.masqueraded if ports.mappings else "",
        ports=ports.mappings,
        whole=ports.mappings == conf.ports.mappings,
        recorded=recorded,
        isolated=attachment.facts.isolated and not conf.port_isolation,
    )


def _further_sources(attachment: Attachment) -> tuple[IP, ...]:
    from cni.plan import sourcecheck

    return sourcecheck.further_sources(attachment)
