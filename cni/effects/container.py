"""Inside the container: settings, addresses, routes.

All of it is deleted with the interface, so only settings that do not belong to it are undone.
"""

from __future__ import annotations

import time

from cni.effects import Effect, not_released, nothing_differs
from cni.kernel import rtnl, rtnl_parse, sysctl
from cni.protocol.errors import OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.operations import ContainerAddress, ContainerRoute, ContainerSysctl, ContainerUp, WaitReady
    from cni.protocol.result import Route

FORWARD_SECONDS = 5.0
DUPLICATE_SECONDS = 5.0
STEP_SECONDS = 0.001


def apply_sysctl(host: Host, op: ContainerSysctl, journal: Journal) -> None:
    with host.in_container:
        before = sysctl.ensure(op.key, op.value, optional=not op.required)
    if before is None and op.required:
        raise OperationFailed(f"the container has no {sysctl.dotted(op.key)}: is IPv6 switched off (ipv6.disable=1)?")
    if before in (None, op.value):
        return

    def restore() -> None:
        with host.in_container:
            sysctl.ensure(op.key, before, optional=not op.required)

    journal.add(restore)


def sysctl_differs(host: Host, op: ContainerSysctl) -> str:
    """Compares only a setting that is required: the container may change the others."""
    if not op.required:
        return ""
    with host.in_container:
        value = sysctl.read(op.key)
    state = "missing" if value is None else value
    return "" if value == op.value else f"the container's {op.key} is {state}, not {op.value}"


def apply_address(host: Host, op: ContainerAddress, journal: Journal) -> None:
    flags = rtnl.IFA_F_NODAD if op.address.family == 6 and not op.detect_duplicates else 0
    flags |= 0 if op.subnet_on_link else rtnl.IFA_F_NOPREFIXROUTE
    host.container_rtnl.request(*rtnl.new_address(host.container_rtnl.ifindex(op.ifname), op.address, flags))


def address_differs(host: Host, op: ContainerAddress) -> str:
    present = host.container_rtnl.has_address(op.ifname, op.address)
    return "" if present else f"{op.ifname} has lost the address {op.address.text}"


def apply_up(host: Host, op: ContainerUp, journal: Journal) -> None:
    host.container_rtnl.request(*rtnl.set_flags(op.ifname, rtnl.IFF_UP, rtnl.IFF_UP))


def up_differs(host: Host, op: ContainerUp) -> str:
    link = host.container_rtnl.find(op.ifname)
    return "" if link is not None and link.up else f"{op.ifname} is not up"


def apply_route(host: Host, op: ContainerRoute, journal: Journal) -> None:
    message = rtnl.new_route(host.container_rtnl.ifindex(op.ifname), op.route, op.source)
    host.container_rtnl.request(*message)


def route_differs(host: Host, op: ContainerRoute) -> str:
    link = host.container_rtnl.find(op.ifname)
    routes = {} if link is None else host.container_rtnl.routes_of_link(link.ifindex, op.route.dst.family)
    if any(_matches(route, op.route) for route in routes.get(op.route.dst, ())):
        return ""
    return f"the container has lost the route {op.route.dst.text}, or it is not as it was"


def _matches(route: rtnl_parse.RouteInfo, requested: Route) -> bool:
    """True if the route has every attribute that was requested; the kernel chooses the others. IPv6 has no scopes."""
    return (
        (route.gw, route.table) == (requested.gw, requested.table or rtnl.RT_TABLE_MAIN)
        and all(not wanted or getattr(route, key) == wanted for key, wanted in _attributes(requested))
        and (requested.scope is None or requested.dst.family == 6 or route.scope == requested.scope)
    )


def _attributes(route: Route) -> list[tuple[str, int]]:
    return [("mtu", route.mtu), ("advmss", route.advmss), ("priority", route.priority)]


def await_ready(host: Host, op: WaitReady, journal: Journal) -> None:
    _wait_until_forwarding(host, op)
    if op.detect_duplicates:
        _wait_for_duplicates(host, op)
    if not op.announce:
        return
    # Given its own address again, an interface tells its neighbours (arp_notify; kernel net/ipv4/devinet.c).
    host.container_rtnl.request(*rtnl.set_mac(op.ifname, op.mac))


def _wait_until_forwarding(host: Host, op: WaitReady) -> None:
    """Polls the link state: the kernel detects a pair's carrier in a work queue, usually before the first poll."""
    end = time.monotonic() + FORWARD_SECONDS
    while host.rtnl.need(op.host_interface).operstate != rtnl.OPERSTATE_UP:
        host.raise_if_interrupted()
        if time.monotonic() > end:
            raise OperationFailed(f"{op.host_interface} did not come up within {FORWARD_SECONDS:.0f} s")
        time.sleep(STEP_SECONDS)


def _wait_for_duplicates(host: Host, op: WaitReady) -> None:
    end = time.monotonic() + DUPLICATE_SECONDS
    while True:
        present = host.container_rtnl.addresses(op.ifname)
        duplicates = [info.address.text for info in present if info.flags & rtnl.IFA_F_DADFAILED]
        if duplicates:
            raise OperationFailed(f"another host on the network has the address {duplicates[0]} already")
        if not any(info.flags & rtnl.IFA_F_TENTATIVE for info in present):
            return
        host.raise_if_interrupted()
        if time.monotonic() > end:
            raise OperationFailed(f"duplicate address detection did not end within {DUPLICATE_SECONDS:.0f} s")
        time.sleep(10 * STEP_SECONDS)


EFFECTS = {
    "ContainerSysctl": Effect(apply_sysctl, not_released, sysctl_differs),
    "ContainerAddress": Effect(apply_address, not_released, address_differs),
    "ContainerUp": Effect(apply_up, not_released, up_differs),
    "ContainerRoute": Effect(apply_route, not_released, route_differs),
    "WaitReady": Effect(await_ready, not_released, nothing_differs),
}
