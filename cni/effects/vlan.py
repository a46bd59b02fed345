"""VLANs of a bridge's ports, and the gateway's interface in one of them."""

from __future__ import annotations

from errno import EEXIST, ENOENT

from cni.effects import Effect, not_released
from cni.kernel import rtnl, rtnl_parse, sysctl
from cni.kernel.netlink import NetlinkError
from cni.plan.vlan import DEFAULT_VLAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.vlan import PortVlan, RemovePortVlan, VlanGateway


def apply_port(host: Host, op: PortVlan, journal: Journal) -> None:
    """Adds VLANs to the port; they need no undo, since they go with the port."""
    host.rtnl.request(*rtnl.add_vlans(host.rtnl.ifindex(op.port), op.first, op.last, op.native))


def apply_removal(host: Host, op: RemovePortVlan, journal: Journal) -> None:
    """Deletes a VLAN of the port; it needs no undo, since the settings go with the port."""
    host.rtnl.request(*rtnl.delete_vlan(host.rtnl.ifindex(op.port), op.vid))


def _vlans(host: Host, port: str) -> dict[int, int]:
    of_ports = dict(map(rtnl_parse.parse_port_vlans, host.rtnl.dump(*rtnl.all_port_vlans())))
    return of_ports.get(host.rtnl.ifindex(port), {})


def port_differs(host: Host, op: PortVlan) -> str:
    vlans = _vlans(host, op.port)
    missing = [vid for vid in range(op.first, op.last + 1) if vid not in vlans]
    if missing:
        return f"{op.port} is not in VLAN {missing[0]}"
    if op.native and not vlans[op.first] & rtnl.BRIDGE_VLAN_INFO_PVID:
        return f"VLAN {op.first} is not native on {op.port}"
    return ""


def removal_differs(host: Host, op: RemovePortVlan) -> str:
    return f"{op.port} is still in VLAN {op.vid}" if op.vid in _vlans(host, op.port) else ""


def apply_gateway(host: Host, op: VlanGateway, journal: Journal) -> None:
    """Configures the pair again if it exists: another ADD may be creating it, or one was killed half-way."""
    port_mac = op.mac[:1] + bytes([op.mac[1] ^ 1]) + op.mac[2:]
    message = rtnl.new_veth((op.name, op.mac), (op.port, port_mac), 0, None)
    try:
        journal.run(lambda: host.rtnl.request(*message), lambda: host.rtnl.delete(op.name), shared=True)
    except NetlinkError as error:
        if error.errno != EEXIST:
            raise
    else:
        for end in (op.name, op.port):  # before it is up: containers of the VLAN may be sending already
            sysctl.ensure(f"net/ipv6/conf/{end}/accept_ra", "0", optional=True)
    host.rtnl.request(*rtnl.set_port(op.port, host.rtnl.ifindex(op.bridge), "", ipv6=False))
    port = host.rtnl.ifindex(op.port)
    host.rtnl.request(*rtnl.add_vlans(port, op.vlan, op.vlan, native=True))
    if op.vlan != DEFAULT_VLAN:
        host.rtnl.tolerate(ENOENT, rtnl.delete_vlan(port, DEFAULT_VLAN))
    host.rtnl.request(*rtnl.set_flags(op.name, rtnl.IFF_UP, rtnl.IFF_UP))


def gateway_differs(host: Host, op: VlanGateway) -> str:
    link = host.rtnl.find(op.name)
    if link is None:
        return f"{op.name}, the gateway's interface in VLAN {op.vlan}, is gone"
    return "" if link.up else f"{op.name} is down"


EFFECTS = {
    "PortVlan": Effect(apply_port, not_released, port_differs),
    "RemovePortVlan": Effect(apply_removal, not_released, removal_differs),
    "VlanGateway": Effect(apply_gateway, not_released, gateway_differs),
}
