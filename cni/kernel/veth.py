"""The veth pair: the one thing an attachment is; when it goes, addresses, routes and settings go with it."""

from __future__ import annotations

from errno import EEXIST

from cni.kernel import rtnl
from cni.kernel.machine import delete_link, find_link, has_ipv6, need_link
from cni.kernel.netlink import Refused
from cni.spec.address import mac_text
from cni.spec.errors import MachineRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.journal import Journal
    from cni.kernel.machine import Machine
    from cni.plan.operations import Veth


def apply(machine: Machine, op: Veth, journal: Journal) -> None:
    bridge = need_link(machine.route, op.bridge)
    ends = (op.host_interface, op.host_mac), (op.ifname, op.mac)
    try:
        machine.route.request(*rtnl.new_veth(*ends, op.mtu, machine.inside.descriptor))
    except Refused as refused:
        if refused.errno == EEXIST:
            raise MachineRefused(_who_is_there(machine, op)) from None
        raise
    journal.add(lambda: delete_link(machine.route, op.host_interface))
    link = need_link(machine.route, op.host_interface)
    machine.route.request(*rtnl.set_port(link.ifindex, bridge.ifindex, op.alias, has_ipv6()))


def _who_is_there(machine: Machine, op: Veth) -> str:
    remedy = "the container is attached already, DEL comes before another ADD"
    if find_link(machine.container_route, op.ifname) is not None:
        return f"an interface {op.ifname!r} already exists in the container: {remedy}"
    return f"an interface {op.host_interface!r} already exists on the host: {remedy}"


def release(machine: Machine, op: Veth) -> None:
    """The pair goes with either end; the container's is looked for too, since others may have named the host's."""
    delete_link(machine.route, op.host_interface)
    if machine.container is not None:
        delete_link(machine.container_route, op.ifname)


def differs(machine: Machine, op: Veth) -> str:
    host, container = find_link(machine.route, op.host_interface), find_link(machine.container_route, op.ifname)
    if container is None:
        return f"{op.ifname} is gone from the container"
    if host is None:
        return f"{op.host_interface} is gone from the host"
    bridge = find_link(machine.route, op.bridge)
    for holds, otherwise in (
        (
            container.peer == host.ifindex and host.peer == container.ifindex,
            f"{op.ifname} and {op.host_interface} are not each other's ends",
        ),
        (
            bridge is not None and host.master == bridge.ifindex,
            f"{op.host_interface} is not a port of {op.bridge}",
        ),
        (host.up, f"{op.host_interface} is down"),
        (container.mac == op.mac, f"{op.ifname} has the address {mac_text(container.mac)}, not {mac_text(op.mac)}"),
        (not op.mtu or container.mtu == op.mtu, f"{op.ifname} has an MTU of {container.mtu}, not {op.mtu}"),
    ):
        if not holds:
            return otherwise
    return ""
