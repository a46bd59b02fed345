"""The first hops: the container's interface and its route, the host veth, the bridge, the source check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import IPAM, kind_of
from cni.diag.check import HOST_ROUTE, REMOVE_ROUTE, compared
from cni.diag.node import lookups
from cni.diag.node.attachments import GONE
from cni.diag.node.netconfs import conf_of
from cni.diag.path.hop import passes, stops, unknown
from cni.effects.nft_socket import SOURCE_SETS, SPOOFCHECK_SETS
from cni.kernel.netlink import NetlinkError
from cni.kernel.nft import Element
from cni.plan.nftables import ALLOWED, CHECKED, GUARDED, SOURCES
from cni.plugins.bridge import incoming_interface
from cni.protocol.address import mac_text
from cni.protocol.errors import InvalidNetns

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from cni.diag.node.attachments import Attached
    from cni.diag.node.lookups import NextHop
    from cni.diag.path.ends import Connection
    from cni.diag.path.hop import Hop
    from cni.effects.host import Host
    from cni.kernel.rtnl_parse import Link
    from cni.protocol.address import IP

RECREATE = "recreate the pod"
NO_PAIR = "its interface has no other end on this host (macvlan, SR-IOV): what becomes of its packets cannot be read"
IFNAME_BYTES, MAC_BYTES = 16, 8  # in keys of concatenations


def repair(attached: Attached) -> str:
    return f"podwire repair {attached.name}"


def as_made(attached: Attached) -> Iterator[Hop]:
    """Yields one hop if an attachment is no longer as ADD made it, or cannot be compared, and one if the host's routes
    lead past it. Leases stop no packet.
    """
    if attached.interface == GONE:  # a hop of its own
        return
    effects = [each for each in compared(attached) if each.difference or each.error]
    texts = [each.difference or each.error for each in effects if kind_of(each.plugin) != IPAM]
    routes = [each.difference or each.error for each in effects if each.plugin == HOST_ROUTE]
    differences = [text for text in texts if text not in routes]
    if differences:
        yield unknown("attachment", attached.name, "; ".join(differences), repair(attached))
    for text in routes:
        yield unknown(HOST_ROUTE, attached.name, text, REMOVE_ROUTE)


def container(host: Host, path: Connection) -> Generator[Hop, None, NextHop | None]:
    """Yields the hop in the container, whose namespace is opened; returns its route, None if nothing more is known.

    Raises NetlinkError, OSError.
    """
    source, ip, target = path.source, path.source_ip, path.target_ip
    subject = f"{source.owner.ifname} in {source.name}"
    link, lack = usable(host, source, ip)
    if link is None:
        yield lack
        return None
    route = lookups.next_hop(host.container_rtnl, target, ip)
    if isinstance(route, NetlinkError):
        yield stops("container", subject, f"no route to {target.text}: {route}", repair(source))
        return None
    if route.is_local:
        yield passes("container", subject, f"{target.text} is the container's own address")
        return route
    if route.ifindex != link.ifindex:
        other = host.container_rtnl.find_at(route.ifindex)
        name = other.name if other is not None else f"interface {route.ifindex}"
        yield unknown("container", subject, f"the route to {target.text} is by {name}", "trace from its attachment")
        return None
    via = f"via {route.gw.text}" if route.gw is not None else "on its own network"
    yield passes("container", subject, f"up, {ip.text}; route to {target.text}: {via}")
    return route


def usable(host: Host, attached: Attached, ip: IP) -> tuple[Link, Hop] | tuple[None, Hop]:
    """Returns the container's interface, or why it is of no use. The namespace is opened. Raises NetlinkError."""
    subject = f"{attached.owner.ifname} in {attached.name}"
    link = host.container_rtnl.find(attached.owner.ifname)
    if link is None:
        return None, stops("container", subject, "there is no such interface", RECREATE)
    if not link.up:
        return None, stops("container", subject, "the interface is down", repair(attached))
    if ip not in [info.address.ip for info in host.container_rtnl.addresses(link.name)]:
        return None, stops("container", subject, f"it lacks the address {ip.text}", repair(attached))
    return link, passes("container", subject, f"up, {ip.text}")


def opened(host: Host, attached: Attached) -> Hop | None:
    """Opens the container's namespace; returns the hop that says why that is not possible, if it is not."""
    if attached.interface == GONE:
        name = attached.host_interface or attached.name
        return stops("veth", name, "the host interface is gone, and DEL was never called", RECREATE)
    if not attached.netns:
        reason = "the network namespace is not known: neither the runtime nor podwire has kept its ADD"
        return unknown("container", attached.name, reason, RECREATE)
    try:
        host.open_container(attached.netns, own_allowed=True)
    except InvalidNetns as error:
        return stops("container", attached.name, error.message, RECREATE)
    return None


def veth(host: Host, attached: Attached) -> Generator[Hop, None, Link | None]:
    """Yields host veth and bridge; returns the interface by which the host receives the container's packets, None if
    it is none. Raises NetlinkError.
    """
    name, conf = attached.host_interface, conf_of(attached)
    if not name:
        yield unknown("veth", attached.name, NO_PAIR)
        return None
    port = host.rtnl.find(name)
    if port is None or not port.up:
        yield stops("veth", name, "down" if port is not None else "gone", repair(attached))
        return None
    bridge = host.rtnl.find_at(port.master)
    wanted = conf.bridge if conf is not None and not conf.routed else ""
    if wanted and (bridge is None or bridge.name != wanted):
        evidence = f"no port of {wanted}" + (f", but of {bridge.name}" if bridge is not None else "")
        yield stops("veth", name, evidence, repair(attached))
        return None
    yield passes("veth", name, f"up, port of {bridge.name}" if bridge is not None else "up, routed")
    if bridge is None:
        return port
    incoming = host.rtnl.find(incoming_interface(conf)) if conf is not None and not conf.routed else bridge
    if incoming is None or not incoming.up:
        yield stops("bridge", bridge.name, "down" if incoming is not None else "the interface of its VLAN is gone")
        return None
    addresses = ", ".join([info.address.text for info in host.rtnl.addresses(incoming.name)])
    yield passes("bridge", incoming.name, f"up, {addresses or 'no address'}")
    return incoming


def source_check(host: Host, path: Connection, mac: bytes) -> Iterator[Hop]:
    """Yields the check of the source, of its MAC address and IP address, where the interface is checked. Raises
    NetlinkError, OSError.
    """
    name, ip = path.source.host_interface, path.source_ip
    key = name.encode().ljust(IFNAME_BYTES, b"\0")
    checks = {
        mac_text(mac): (SPOOFCHECK_SETS[GUARDED], SPOOFCHECK_SETS[ALLOWED], mac.ljust(MAC_BYTES, b"\0")),
        ip.text: (SOURCE_SETS[CHECKED], SOURCE_SETS[SOURCES[ip.family]], ip.packed),
    }
    for source, (checked, allowed, value) in checks.items():
        if host.nft.find(checked, Element(key, "", "")) is None:
            continue
        where = f"set {allowed.name} of table bridge {allowed.table}"
        if host.nft.find(allowed, Element(key + value, "", "")) is None:
            yield stops("source check", name, f"{source} is not in {where}", repair(path.source))
        else:
            yield passes("source check", name, f"{source} is in {where}")
