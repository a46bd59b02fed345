"""The container's loopback interface, which every network namespace is born with, down."""

from __future__ import annotations

from cni.effects.stray import is_anothers
from cni.kernel import rtnl
from cni.protocol.errors import MachineRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Machine
    from cni.effects.journal import Journal
    from cni.plan.loopback import LoopbackUp
    from cni.protocol.address import Net

LOOPBACK4 = 127  # RFC 1122: the first byte


def apply(machine: Machine, op: LoopbackUp, journal: Journal) -> None:
    route = machine.container_route
    if not route.need(op.ifname).up:
        journal.add(lambda: route.request(*rtnl.set_flags(op.ifname, 0, rtnl.IFF_UP)))
        route.request(*rtnl.set_flags(op.ifname, rtnl.IFF_UP, rtnl.IFF_UP))
    foreign = [one.text for one in addresses(machine, op.ifname) if not _is_loopback(one)]
    if foreign:
        raise MachineRefused(f"{op.ifname} has an address that is not a loopback address: {', '.join(foreign)}")


def release(machine: Machine, op: LoopbackUp) -> None:
    """An ADD of the container that has the path by now would not come again to set its interface up."""
    if machine.container is None or machine.container.same_as(machine.host):
        return
    if not is_anothers(machine, op.label):
        machine.container_route.request(*rtnl.set_flags(op.ifname, 0, rtnl.IFF_UP))


def differs(machine: Machine, op: LoopbackUp) -> str:
    link = machine.container_route.find(op.ifname)
    return "" if link is not None and link.up else f"{op.ifname} is down"


def addresses(machine: Machine, ifname: str) -> list[Net]:
    """In the kernel's order."""
    return [one.address for one in machine.container_route.addresses(ifname)]


def _is_loopback(address: Net) -> bool:
    return address.ip.value >> 24 == LOOPBACK4 if address.family == 4 else address.ip.value == 1
