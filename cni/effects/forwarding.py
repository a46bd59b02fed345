"""The host's own settings: IP forwarding, and on which interfaces it accepts router advertisements."""

from __future__ import annotations

from errno import ENOENT

from cni.effects import Effect, not_released
from cni.kernel import rtnl, rtnl_parse, sysctl
from cni.kernel.netlink import NetlinkError
from cni.protocol.errors import OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.operations import Forwarding, IgnoreAdvertisements

IPV6 = 6
HOSTS_ONLY, ALWAYS = "1", "2"  # accept_ra: unless the interface forwards; also then


def apply(host: Host, op: Forwarding, journal: Journal) -> None:
    before = sysctl.read(op.key)
    if before is None:
        raise OperationFailed(f"the host has no {op.key}: is IPv6 switched off (ipv6.disable=1)?")
    if before == "0":
        if op.family == IPV6:
            _keep_routers(host, journal)
        journal.add_shared(lambda: sysctl.ensure(op.key, before))
        sysctl.change(op.key, before, "1")


def _keep_routers(host: Host, journal: Journal) -> None:
    """Lets the interfaces that have routes by router advertisements keep them, and listen to routers as before.

    A kernel that begins to forward drops the host's own default route where accept_ra is 1, and takes no other
    (net/ipv6/addrconf.c, rt6_purge_dflt_routers).
    """
    advertised = _advertised(host)
    for link in host.rtnl.links() if advertised else ():
        if link.ifindex in advertised:
            _listen_always(link.name, journal)


def _listen_always(interface: str, journal: Journal) -> None:
    key = f"net/ipv6/conf/{interface}/accept_ra"
    if sysctl.read(key) == HOSTS_ONLY:
        journal.add_shared(lambda: sysctl.ensure(key, HOSTS_ONLY, optional=True))
        sysctl.change(key, HOSTS_ONLY, ALWAYS, optional=True)


def _advertised(host: Host) -> set[int]:
    """Returns the indexes of interfaces with a route that a router advertised: to a default or more, or on the link."""
    try:
        answers = host.rtnl.dump(*rtnl.main_routes(IPV6))
    except NetlinkError as error:
        if error.errno == ENOENT:  # the table is made with its first route
            return set()
        raise
    return {
        hop.ifindex
        for answer in answers
        if rtnl_parse.is_advertised(answer)
        for hop in rtnl_parse.parse_next_hops(answer)
    }


def differs(host: Host, op: Forwarding) -> str:
    return f"the host does not forward IPv{op.family} ({op.key} is 0)" if sysctl.read(op.key) == "0" else ""


def ignore_advertisements(host: Host, op: IgnoreAdvertisements, journal: Journal) -> None:
    """Sets the sysctl if the kernel has it. Its interface may be the attachment's own, and gone when this is undone."""
    before = sysctl.read(op.key)
    if before is not None and before != "0":
        journal.add_shared(lambda: sysctl.ensure(op.key, before, optional=True))
        sysctl.change(op.key, before, "0", optional=True)


def advertisements_differ(host: Host, op: IgnoreAdvertisements) -> str:
    """Compares the setting only if it can be written: ADD could not have changed it either."""
    value = sysctl.read(op.key)
    if value in (None, "0") or not sysctl.is_writable(op.key):
        return ""
    return f"{op.interface} follows the router advertisements of containers ({sysctl.dotted(op.key)} is {value})"


EFFECTS = {
    "Forwarding": Effect(apply, not_released, differs),
    "IgnoreAdvertisements": Effect(ignore_advertisements, not_released, advertisements_differ),
}
