"""The routed link: a veth pair without a bridge, each container behind its own gateway on the host's end.

The host routes all packets of the container, also those to neighbours of the same subnet.
"""

from __future__ import annotations

from cni.plan.link import alias_of, link_local
from cni.plan.operations import ContainerRoute, Forwarding, IgnoreAdvertisements, Veth
from cni.protocol.address import Net, mac_text
from cni.protocol.record import Record
from cni.protocol.result import Interface, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation
    from cni.protocol.address import IP

IPV6 = 6
CONTAINER_INDEX = 1  # the container's place among the interfaces


class HostAddress(Record):
    """The gateway's address on the host's end of one pair; deleted with the interface."""

    interface: str
    address: Net

    def describe(self) -> str:
        return f"ip addr add {self.address.text} dev {self.interface}"


class HostRoute(Record):
    """The host's route to one container; deleted with the interface."""

    interface: str
    ip: IP

    def describe(self) -> str:
        return f"ip route add {self.ip.text} dev {self.interface}"


def interfaces(attachment: Attachment) -> tuple[Interface, ...]:
    names, owner = attachment.names, attachment.owner
    return (
        Interface(names.host_interface, mac_text(names.host_mac)),
        Interface(owner.ifname, mac_text(names.container_mac), attachment.sandbox),
    )


def operations(attachment: Attachment) -> tuple[Operation, ...]:
    conf, names, owner = attachment.conf, attachment.names, attachment.owner
    veth = Veth(
        host_interface=names.host_interface,
        host_mac=names.host_mac,
        ifname=owner.ifname,
        mac=names.container_mac,
        mtu=conf.mtu,
        bridge="",
        alias=alias_of(attachment).text,
        group=attachment.facts.group,
    )
    operations: tuple[Operation, ...] = (veth,)
    if attachment.facts.ipv6:
        operations += (IgnoreAdvertisements(names.host_interface),)
    if conf.ip_spoof_check:
        from cni.plan import sourcecheck

        operations += (sourcecheck.operation(attachment),)
    return operations


def host_routes(attachment: Attachment) -> list[Operation]:
    """Returns the gateway addresses on the host's end, the host's routes to the container, and IP forwarding."""
    host_interface = attachment.names.host_interface
    gateways = sorted({ip.gateway for ip in attachment.lease.ips if ip.gateway is not None})
    operations: list[Operation] = [HostAddress(host_interface, Net(gateway, gateway.bits)) for gateway in gateways]
    if any(ip.address.family == IPV6 for ip in attachment.lease.ips):
        # Without an address of the link itself the host would not ask for its neighbour (kernel net/ipv6/ndisc.c).
        operations.append(HostAddress(host_interface, link_local(attachment.names.host_mac)))
    operations += [HostRoute(host_interface, ip.address.ip) for ip in attachment.lease.ips]
    operations += [Forwarding(family) for family in sorted({ip.address.family for ip in attachment.lease.ips})]
    return operations


def container_routes(attachment: Attachment) -> list[Operation]:
    """Returns the container's routes to the gateways, and to the subnets through them; further routes need these."""
    ifname = attachment.owner.ifname
    operations: dict[Route, Operation] = {}  # each once, from the first address
    for ip in attachment.lease.ips:
        if ip.gateway is None:
            continue
        for route in (Route(Net(ip.gateway, ip.gateway.bits)), Route(ip.address.network, ip.gateway)):
            operations.setdefault(route, ContainerRoute(ifname, route, ip.address.ip))
    return list(operations.values())
