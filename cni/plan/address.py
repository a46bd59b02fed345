"""The address feature: the container's addresses and routes, its gateway on the bridge, and forwarding."""

from __future__ import annotations

from cni.plan.operations import (
    ContainerAddress,
    ContainerRoute,
    ContainerSysctl,
    ContainerUp,
    Forwarding,
    GatewayAddress,
    WaitReady,
)
from cni.protocol.address import IP, Net, mac_text
from cni.protocol.result import Interface, IPConfig, Route

SCOPE_LINK = 253  # include/uapi/linux/rtnetlink.h: RT_SCOPE_LINK, and host and nowhere beyond

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation


def with_gateways(ips: tuple[IPConfig, ...]) -> tuple[IPConfig, ...]:
    """Returns addresses with a gateway each: if the IPAM plugin returned none, the subnet's first address, if any."""
    ips_with_gateway = []
    for ip in ips:
        first = IP(ip.address.family, ip.address.network.ip.value + 1)
        alone = ip.address.prefix == ip.address.ip.bits
        ips_with_gateway.append(ip if alone else ip._replace(gateway=ip.gateway or first))
    return tuple(ips_with_gateway)


def routes(attachment: Attachment) -> tuple[Route, ...]:
    """Returns the IPAM's routes, and a default route of each family if it is requested and none exists."""
    routes = list(attachment.lease.routes)
    if attachment.conf.is_default_gateway:
        destinations = {route.dst for route in routes if route.table is None}
        for ip in attachment.lease.ips:
            default = Net(IP(ip.address.family, 0), 0)
            if default not in destinations:
                destinations.add(default)
                routes.append(Route(default, ip.gateway))
    return tuple(routes)


def gateway_interface(attachment: Attachment) -> str:
    """Returns the interface of the gateway's addresses: the host's end, the bridge, or with a VLAN a link in it."""
    conf = attachment.conf
    if conf.routed:
        return attachment.names.host_interface
    return f"{conf.bridge}.{conf.vlan}" if conf.vlan else conf.bridge


def interfaces(attachment: Attachment) -> tuple[Interface, ...]:
    """Returns the interfaces that the feature adds to the result."""
    conf = attachment.conf
    if conf.routed or not (conf.vlan and conf.is_gateway):
        return ()
    from cni.plan import vlan

    return (Interface(gateway_interface(attachment), mac_text(vlan.gateway(attachment).mac)),)


def operations(attachment: Attachment) -> tuple[Operation, ...]:
    conf, names, owner = attachment.conf, attachment.names, attachment.owner
    ifname = owner.ifname
    operations = _sysctls(attachment)
    operations += [
        ContainerAddress(ifname, ip.address, conf.enable_dad, not conf.routed) for ip in attachment.lease.ips
    ]
    if not conf.disable_container_interface:
        operations.append(ContainerUp(ifname))
    if conf.routed:
        from cni.plan import routed

        operations += routed.container_routes(attachment) + _routes(attachment) + routed.host_routes(attachment)
    else:
        operations += _routes(attachment)
        if conf.is_gateway:
            operations += _gateway(attachment)
    operations += _notices(attachment)
    if not conf.disable_container_interface:
        # Else the one address always comes with the same MAC address.
        announce = conf.mac is not None or conf.mac_capability or len(attachment.lease.ips) > 1
        operations.append(WaitReady(names.host_interface, ifname, names.container_mac, conf.enable_dad, announce))
    return tuple(operations)


def _sysctls(attachment: Attachment) -> list[Operation]:
    """Returns the sysctls that the reference sets: duplicate address detection only on demand."""
    ifname = attachment.owner.ifname
    sysctls: list[Operation] = []
    if attachment.facts.ipv6:
        if attachment.conf.enable_dad:
            sysctls.append(ContainerSysctl(f"net/ipv6/conf/{ifname}/enhanced_dad", "1"))
        accept = "1" if attachment.conf.enable_dad else "0"
        sysctls.append(ContainerSysctl(f"net/ipv6/conf/{ifname}/accept_dad", accept))
    if any(ip.address.family == 6 for ip in attachment.lease.ips):
        sysctls.append(ContainerSysctl("net/ipv6/conf/lo/disable_ipv6", "0", required=True))
        sysctls.append(ContainerSysctl(f"net/ipv6/conf/{ifname}/disable_ipv6", "0", required=True))
        sysctls.append(ContainerSysctl(f"net/ipv6/conf/{ifname}/keep_addr_on_down", "1"))
        if not attachment.conf.accept_ra:  # the addresses and routes of the IPAM are all that it gets
            sysctls += [ContainerSysctl(f"net/ipv6/conf/{ifname}/{name}", "0") for name in ("accept_ra", "autoconf")]
    return sysctls


def _notices(attachment: Attachment) -> list[Operation]:
    """Makes the interface announce its addresses from now on; an announcement at link up would be lost."""
    ifname = attachment.owner.ifname
    sysctls: list[Operation] = [ContainerSysctl(f"net/ipv4/conf/{ifname}/arp_notify", "1")]
    if any(ip.address.family == 6 for ip in attachment.lease.ips):
        sysctls.append(ContainerSysctl(f"net/ipv6/conf/{ifname}/ndisc_notify", "1"))
    return sysctls


def _routes(attachment: Attachment) -> list[Operation]:
    """Returns each route once, by its own gateway or else the family's; a route on the link has none."""
    operations: dict[Operation, None] = {}
    for route in routes(attachment):
        on_link = route.scope is not None and route.scope >= SCOPE_LINK
        through = route if on_link else route._replace(gw=route.gw or attachment.gateway(route.dst.family))
        operations[ContainerRoute(attachment.owner.ifname, through)] = None
    return list(operations)


def _gateway(attachment: Attachment) -> list[Operation]:
    conf, place = attachment.conf, gateway_interface(attachment)
    operations: list[Operation] = []
    if conf.vlan:
        from cni.plan import vlan

        operations += vlan.gateway_operations(attachment)
    families = []
    for ip in attachment.lease.ips:
        if ip.gateway is not None:
            operations.append(GatewayAddress(place, Net(ip.gateway, ip.address.prefix), conf.force_address))
            families.append(ip.address.family)
    operations += [Forwarding(family) for family in sorted(set(families))]
    return operations
