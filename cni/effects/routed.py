"""The host's side of a routed pair: the gateway's address and the way to the container; both go with the interface."""

from __future__ import annotations

from cni.effects import Effect, not_released
from cni.kernel import rtnl
from cni.kernel.netlink import NLM_F_EXCL
from cni.protocol.address import Net
from cni.protocol.result import Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.routed import HostAddress, HostRoute


def apply_address(host: Host, op: HostAddress, journal: Journal) -> None:
    """All gateways of a host have the one address, so no neighbour is asked whether it has it."""
    flags = rtnl.IFA_F_NODAD if op.address.family == 6 else 0
    host.rtnl.request(*rtnl.new_address(host.rtnl.ifindex(op.interface), op.address, flags))


def address_differs(host: Host, op: HostAddress) -> str:
    is_present = host.rtnl.has_address(op.interface, op.address)
    return "" if is_present else f"{op.interface} has lost the gateway address {op.address.text}"


def apply_route(host: Host, op: HostRoute, journal: Journal) -> None:
    """Adds the route. Raises NetlinkError (EEXIST) if another interface leads to the address."""
    kind, flags, payload = rtnl.new_route(host.rtnl.ifindex(op.interface), Route(Net(op.ip, op.ip.bits)))
    host.rtnl.request(kind, flags | NLM_F_EXCL, payload)


def route_differs(host: Host, op: HostRoute) -> str:
    link = host.rtnl.find(op.interface)
    if link is not None and Net(op.ip, op.ip.bits) in host.rtnl.routes_of_link(link.ifindex, op.ip.family):
        return ""
    return f"the host has lost the route to {op.ip.text} out of {op.interface}"


EFFECTS = {
    "HostAddress": Effect(apply_address, not_released, address_differs),
    "HostRoute": Effect(apply_route, not_released, route_differs),
}
