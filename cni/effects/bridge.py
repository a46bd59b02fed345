"""The bridge and its ports. Shared objects stay at DEL; only the ADD that created them removes them if it fails."""

from __future__ import annotations

from errno import EADDRNOTAVAIL, EEXIST

from cni.effects import Effect, not_released
from cni.kernel import rtnl, rtnl_parse, sysctl
from cni.kernel.netlink import NetlinkError
from cni.plan.link import link_local
from cni.protocol.address import IPV6_MTU
from cni.protocol.errors import OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.operations import Bridge, BridgePort, GatewayAddress
    from cni.protocol.address import Net

MAC_CHOSEN = "3"  # include/uapi/linux/netdevice.h: NET_ADDR_SET


def apply_bridge(host: Host, op: Bridge, journal: Journal) -> None:
    present = host.rtnl.find(op.name)
    link = present or _create(host, op, journal)
    if link.kind != "bridge":
        raise OperationFailed(f'"{op.name}" already exists but is not a bridge: choose another name for the bridge')
    if present:
        _keep_mac(host, present, op.mac)
    wanted = rtnl.IFF_UP | (rtnl.IFF_PROMISC if op.promiscuous else 0)
    if link.flags & wanted != wanted:
        restored = rtnl.set_flags(op.name, link.flags & wanted, wanted)
        journal.add_shared(lambda: host.rtnl.request(*restored))
        host.rtnl.request(*rtnl.set_flags(op.name, wanted, wanted))
    if op.vlan_aware and not link.vlan_filtering:
        unfiltered = rtnl.set_vlan_filtering(op.name, enabled=False)
        journal.add_shared(lambda: host.rtnl.request(*unfiltered))
        host.rtnl.request(*rtnl.set_vlan_filtering(op.name, enabled=True))


def _create(host: Host, op: Bridge, journal: Journal) -> rtnl_parse.Link:
    """Creates the bridge; one that another ADD creates at the same time is as good."""
    try:
        message = rtnl.new_bridge(op.name, op.mac, op.mtu, op.vlan_aware)
        journal.run(lambda: host.rtnl.request(*message), lambda: _delete_empty(host, op.name), shared=True)
    except NetlinkError as error:
        if error.errno != EEXIST:
            raise
    # Nobody else has the bridge's own address: while it was searched for a duplicate (2 s), the host would ask for no
    # neighbour, and nothing would reach a container.
    sysctl.ensure(f"net/ipv6/conf/{op.name}/accept_dad", "0", optional=True)
    link = host.rtnl.need(op.name)
    # A bridge whose address was chosen has no carrier before a port has, and without one the kernel would give it no
    # link-local address (net/bridge/br_stp_if.c, br_stp_change_bridge_id).
    if all(sysctl.read(f"net/ipv6/conf/{op.name}/{setting}") == "0" for setting in ("disable_ipv6", "addr_gen_mode")):
        own = rtnl.new_address(link.ifindex, link_local(op.mac), rtnl.IFA_F_NODAD)
        host.rtnl.tolerate(EEXIST, own)
    return link


def _delete_empty(host: Host, name: str) -> None:
    link = host.rtnl.find(name)
    if link is not None and not host.rtnl.dump(*rtnl.ports_of(link.ifindex)):
        host.rtnl.delete(name)


def _keep_mac(host: Host, link: rtnl_parse.Link, mac: bytes) -> None:
    """Fixes the MAC address of a bridge that another program created: it follows that of a port until one is set
    (kernel br_stp_if.c).

    A bridge without ports has no address: it gets `mac`, as podwire's own bridges do.
    """
    if link.mac == mac:
        return
    # /sys may show another namespace: choosing the same address once more does no harm.
    if sysctl.read_text(f"/sys/class/net/{link.name}/addr_assign_type") == MAC_CHOSEN and any(link.mac):
        return
    host.rtnl.request(*rtnl.set_mac(link.name, link.mac if any(link.mac) else mac))


def bridge_differs(host: Host, op: Bridge) -> str:
    link = host.rtnl.find(op.name)
    if link is None:
        return f"bridge {op.name} is gone"
    if link.kind != "bridge":
        return f"{op.name} is not a bridge"
    if not link.up:
        return f"bridge {op.name} is down"
    if op.promiscuous and not link.flags & rtnl.IFF_PROMISC:
        return f"bridge {op.name} is not promiscuous"
    if op.vlan_aware and not link.vlan_filtering:
        return f"bridge {op.name} does not filter VLANs"
    return ""


def apply_port(host: Host, op: BridgePort, journal: Journal) -> None:
    """Sets the port's flags; they need no undo, since they go with the port."""
    host.rtnl.request(*rtnl.set_bridge_port(op.host_interface, op.hairpin, op.isolated))


def port_differs(host: Host, op: BridgePort) -> str:
    link = host.rtnl.find(op.host_interface)
    if link is None:
        return f"{op.host_interface} is gone"
    wrong = [word for word in ("hairpin", "isolated") if getattr(link, word) != getattr(op, word)]
    return f"{op.host_interface} is not set as asked: {', '.join(wrong)}" if wrong else ""


def apply_gateway(host: Host, op: GatewayAddress, journal: Journal) -> None:
    index = host.rtnl.ifindex(op.bridge)
    present = [info.address for info in host.rtnl.addresses(op.bridge)]
    if op.address in present:
        return
    for other in present:
        if in_conflict(op.address, other):
            _displace(host, op, other, journal)
    message = rtnl.new_address(index, op.address, rtnl.IFA_F_NODAD)
    undo = rtnl.delete_address(index, op.address)
    try:
        journal.run(
            lambda: host.rtnl.request(*message),
            lambda: host.rtnl.tolerate(EADDRNOTAVAIL, undo),
            shared=True,
        )
    except NetlinkError as error:
        if error.errno == EEXIST:  # another ADD was first
            return
        mtu = host.rtnl.need(op.bridge).mtu
        if op.address.family == 4 or mtu >= IPV6_MTU:
            raise
        remedy = "raise it, and that of the bridge's ports, which it follows"
        raise OperationFailed(
            f"{op.bridge} cannot have the gateway address {op.address.text}: its MTU is {mtu}, and the kernel has no"
            f" IPv6 on an interface with less than {IPV6_MTU} (RFC 8200); {remedy}"
        ) from None


def _displace(host: Host, op: GatewayAddress, other: Net, journal: Journal) -> None:
    index = host.rtnl.ifindex(op.bridge)
    if not op.force:
        remedy = f"remove it (ip addr del {other.text} dev {op.bridge}), or set forceAddress"
        raise OperationFailed(
            f'"{op.bridge}" already has an IP address different from {op.address.text}: {other.text}; {remedy}'
        )
    undo = rtnl.new_address(index, other, 0)
    journal.add_shared(lambda: host.rtnl.tolerate(EEXIST, undo))
    host.rtnl.request(*rtnl.delete_address(index, other))


def in_conflict(wanted: Net, present: Net) -> bool:
    """Returns True if the gateway address conflicts with one of the bridge: a second IPv6 subnet may stand beside the
    first, and any address beside the kernel's link-local one.
    """
    if wanted.family != present.family or present.ip.is_ipv6_link_local:
        return False
    return wanted.family == 4 or wanted.contains(present.ip) or present.contains(wanted.ip)


def gateway_differs(host: Host, op: GatewayAddress) -> str:
    is_present = host.rtnl.has_address(op.bridge, op.address)
    return "" if is_present else f"{op.bridge} has lost the gateway address {op.address.text}"


EFFECTS = {
    "Bridge": Effect(apply_bridge, not_released, bridge_differs),
    "BridgePort": Effect(apply_port, not_released, port_differs),
    "GatewayAddress": Effect(apply_gateway, not_released, gateway_differs),
}
