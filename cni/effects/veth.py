"""The veth pair: the one thing an attachment is; when it goes, addresses, routes and settings go with it."""

from __future__ import annotations

from errno import EEXIST

from cni.kernel import rtnl, sysctl
from cni.kernel.netlink import Refused
from cni.protocol.address import mac_text
from cni.protocol.errors import MachineRefused
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Machine
    from cni.effects.journal import Journal
    from cni.kernel.rtnl_parse import Link
    from cni.plan.operations import Veth
    from cni.protocol.owner import Owner


def apply(machine: Machine, op: Veth, journal: Journal) -> None:
    bridge = machine.route.ifindex(op.bridge) if op.bridge else 0
    ends = (op.host_interface, op.host_mac), (op.ifname, op.mac)
    message = rtnl.new_veth(*ends, op.mtu, machine.container_descriptor)
    try:
        journal.take(lambda: machine.route.request(*message), lambda: machine.route.delete(op.host_interface))
    except Refused as refused:
        if refused.errno == EEXIST:
            refuse_attached(machine, op.host_interface, op.ifname)
        raise
    # A link whose MTU IPv6 cannot live with (RFC 8200: 1280 bytes) has nothing of it to set.
    has_ipv6 = sysctl.exists(f"/proc/sys/net/ipv6/conf/{op.host_interface}")
    machine.route.request(*rtnl.set_port(op.host_interface, bridge, op.alias, has_ipv6))


def refuse_attached(machine: Machine, host_interface: str, ifname: str) -> None:
    """Raises MachineRefused where either end is there (SPEC, ADD: an interface of that name is an error)."""
    remedy = "the container is attached already, DEL comes before another ADD"
    if machine.container_route.find(ifname) is not None:
        raise MachineRefused(f"an interface {ifname!r} already exists in the container: {remedy}")
    if machine.route.find(host_interface) is not None:
        raise MachineRefused(f"an interface {host_interface!r} already exists on the host: {remedy}")


def find_own(machine: Machine, owner: Owner) -> Link | None:
    """Returns the host's end of the attachment's pair; None where it is gone, or another link has its name.

    The alias tells; an ADD that was killed may not have come to it, but every pair is born with its MAC address.
    """
    link = machine.route.find(owner.host_interface)
    if link is None or owner.has(link.alias):
        return link
    unlabelled = label_keys(link.alias) is None and link.kind == "veth"
    return link if unlabelled and link.mac == owner.host_mac else None


def release(machine: Machine, op: Veth) -> None:
    """The pair goes with its host's end, which `find_own` has found."""
    machine.route.delete(op.host_interface)


def differs(machine: Machine, op: Veth) -> str:
    host, container = machine.route.find(op.host_interface), machine.container_route.find(op.ifname)
    if container is None:
        return f"{op.ifname} is gone from the container"
    if host is None:
        return f"{op.host_interface} is gone from the host"
    bridge = machine.route.find(op.bridge) if op.bridge else None
    for holds, otherwise in (
        (
            container.peer == host.ifindex and host.peer == container.ifindex,
            f"{op.ifname} and {op.host_interface} are not each other's ends",
        ),
        (
            host.master == (bridge.ifindex if bridge is not None else 0) and bool(bridge) == bool(op.bridge),
            f"{op.host_interface} is not a port of {op.bridge}" if op.bridge else f"{op.host_interface} is a port",
        ),
        (host.up, f"{op.host_interface} is down"),
        (container.mac == op.mac, f"{op.ifname} has the address {mac_text(container.mac)}, not {mac_text(op.mac)}"),
        (not op.mtu or container.mtu == op.mtu, f"{op.ifname} has an MTU of {container.mtu}, not {op.mtu}"),
    ):
        if not holds:
            return otherwise
    return ""
