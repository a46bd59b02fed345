"""The container's loopback interface, which every network namespace is born with, down."""

from __future__ import annotations

from cni.effects import Effect
from cni.effects.stray import is_anothers
from cni.kernel import rtnl
from cni.protocol.errors import OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.loopback import LoopbackUp
    from cni.protocol.address import Net


def apply(host: Host, op: LoopbackUp, journal: Journal) -> None:
    route = host.container_rtnl
    if not route.need(op.ifname).up:
        journal.add(lambda: route.request(*rtnl.set_flags(op.ifname, 0, rtnl.IFF_UP)))
        route.request(*rtnl.set_flags(op.ifname, rtnl.IFF_UP, rtnl.IFF_UP))
    foreign = [address.text for address in addresses(host, op.ifname) if not address.ip.is_loopback]
    if foreign:
        raise OperationFailed(f"{op.ifname} has an address that is not a loopback address: {', '.join(foreign)}")


def release(host: Host, op: LoopbackUp) -> None:
    """An ADD of the container that has the path by now would not come again to set its interface up."""
    if host.container is None or host.container.same_as(host.netns):
        return
    if not is_anothers(host, op.label):
        host.container_rtnl.request(*rtnl.set_flags(op.ifname, 0, rtnl.IFF_UP))


def differs(host: Host, op: LoopbackUp) -> str:
    link = host.container_rtnl.find(op.ifname)
    return "" if link is not None and link.up else f"{op.ifname} is down"


def addresses(host: Host, ifname: str) -> list[Net]:
    """Returns the interface's addresses in the kernel's order."""
    return [info.address for info in host.container_rtnl.addresses(ifname)]


EFFECTS = {
    "LoopbackUp": Effect(apply, release, differs),
}
