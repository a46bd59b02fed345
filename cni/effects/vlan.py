"""VLANs of a bridge's ports, and the gateway's interface in one of them."""

from __future__ import annotations

from errno import EEXIST, ENOENT

from cni.kernel import rtnl, rtnl_parse, sysctl
from cni.kernel.netlink import Refused
from cni.plan.vlan import DEFAULT_VLAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Machine
    from cni.effects.journal import Journal
    from cni.plan.vlan import NoPortVlan, PortVlan, VlanGateway


def apply_port(machine: Machine, op: PortVlan, journal: Journal) -> None:
    """The way back is the port's own end."""
    del journal
    machine.route.request(*rtnl.add_vlans(machine.route.ifindex(op.port), op.first, op.last, op.native))


def apply_removal(machine: Machine, op: NoPortVlan, journal: Journal) -> None:
    """The way back is the port's own end."""
    del journal
    machine.route.request(*rtnl.delete_vlan(machine.route.ifindex(op.port), op.vid))


def _vlans(machine: Machine, port: str) -> dict[int, int]:
    of_ports = dict(map(rtnl_parse.parse_port_vlans, machine.route.dump(*rtnl.all_port_vlans())))
    return of_ports.get(machine.route.ifindex(port), {})


def port_differs(machine: Machine, op: PortVlan) -> str:
    vlans = _vlans(machine, op.port)
    missing = [vid for vid in range(op.first, op.last + 1) if vid not in vlans]
    if missing:
        return f"{op.port} is not in VLAN {missing[0]}"
    if op.native and not vlans[op.first] & rtnl.BRIDGE_VLAN_INFO_PVID:
        return f"VLAN {op.first} is not native on {op.port}"
    return ""


def removal_differs(machine: Machine, op: NoPortVlan) -> str:
    return f"{op.port} is still in VLAN {op.vid}" if op.vid in _vlans(machine, op.port) else ""


def apply_gateway(machine: Machine, op: VlanGateway, journal: Journal) -> None:
    """Set up again where it is there: another ADD may be making it, or one was killed on the way."""
    port_mac = op.mac[:1] + bytes([op.mac[1] ^ 1]) + op.mac[2:]
    message = rtnl.new_veth((op.name, op.mac), (op.port, port_mac), 0, None)
    try:
        journal.take(lambda: machine.route.request(*message), lambda: machine.route.delete(op.name), shared=True)
    except Refused as refused:
        if refused.errno != EEXIST:
            raise
    else:
        for end in (op.name, op.port):  # before it is up: containers of the VLAN may be sending already
            sysctl.ensure(f"net/ipv6/conf/{end}/accept_ra", "0", optional=True)
    machine.route.request(*rtnl.set_port(op.port, machine.route.ifindex(op.bridge), "", ipv6=False))
    port = machine.route.ifindex(op.port)
    machine.route.request(*rtnl.add_vlans(port, op.vlan, op.vlan, native=True))
    if op.vlan != DEFAULT_VLAN:
        machine.route.tolerate(ENOENT, rtnl.delete_vlan(port, DEFAULT_VLAN))
    machine.route.request(*rtnl.set_flags(op.name, rtnl.IFF_UP, rtnl.IFF_UP))


def gateway_differs(machine: Machine, op: VlanGateway) -> str:
    link = machine.route.find(op.name)
    if link is None:
        return f"{op.name}, the gateway's interface in VLAN {op.vlan}, is gone"
    return "" if link.up else f"{op.name} is down"
