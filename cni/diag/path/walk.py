"""The whole path of a connection, read hop by hop until one stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.node import lookups
from cni.diag.node.attachments import PRESENT
from cni.diag.node.here import opened_host
from cni.diag.path import arriving, forwarding, leaving
from cni.diag.path.ends import holder_of
from cni.diag.path.hop import STOPS, passes, stops, unknown
from cni.effects.journal import FAILURES, error_text
from cni.kernel import sysctl
from cni.kernel.netlink import NetlinkError
from cni.protocol.address import mac_text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from cni.diag.node.attachments import Attached
    from cni.diag.node.lookups import NextHop
    from cni.diag.path.ends import Connection
    from cni.diag.path.hop import Hop
    from cni.effects.host import Host
    from cni.kernel.rtnl_parse import Link

NF_CALL = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}
PROXIES = {4: ("net/ipv4/conf/{}/proxy_arp_pvlan", "net/ipv4/conf/{}/proxy_arp"), 6: ("net/ipv6/conf/{}/proxy_ndp",)}


def walk(path: Connection, seen: Sequence[Attached]) -> list[Hop]:
    """Returns the hops, up to the first that stops the connection. `seen`: the attachments of this node."""
    hops: list[Hop] = []
    try:
        with opened_host() as host:
            for hop in _hops(host, path, seen):
                hops.append(hop)
                if hop.state == STOPS:
                    break
    except FAILURES as error:
        hops.append(unknown("kernel", "the next hop", f"cannot be read: {error_text(error)}", "run it as root"))
    return hops


def _hops(host: Host, path: Connection, seen: Sequence[Attached]) -> Iterator[Hop]:
    yield from leaving.as_made(path.source)
    lack = leaving.opened(host, path.source)
    if lack is not None:
        yield lack
    first = None
    if host.container is not None:
        first = yield from leaving.container(host, path)
        if first is None:
            return
        if first.is_local:
            with host.in_container:
                yield from arriving.listener(path, path.source.name)
            return
    incoming = yield from leaving.veth(host, path.source)
    if incoming is None:
        return
    if first is not None:
        end = host.container_rtnl.need(path.source.owner.ifname)
        yield from leaving.source_check(host, path, end.mac)
        yield from _resolved(host, path, first, incoming)
        if first.gw is None and (yield from _is_bridged(host, path, incoming)):
            return
    yield from _routed(host, path, incoming, seen)


def _resolved(host: Host, path: Connection, first: NextHop, incoming: Link) -> Iterator[Hop]:
    """Yields what is wrong with the container's neighbour entry of its next hop, where that is this node."""
    ip = first.gw or path.target_ip
    entry = lookups.neighbour(host.container_rtnl, first.ifindex, ip)
    own = lookups.next_hop(host.rtnl, ip)
    is_own = not isinstance(own, NetlinkError) and own.is_local
    if first.gw is not None and not is_own:
        evidence = f"the container's gateway {ip.text} is no address of this node: another router goes on"
        yield unknown("gateway", ip.text, evidence, "podwire repair, if the node should have it")
    elif is_own and entry is not None and entry.mac and entry.mac != incoming.mac:
        evidence = f"the container has {mac_text(entry.mac)} for it, {incoming.name} has {mac_text(incoming.mac)}"
        state = stops if entry.state == lookups.PERMANENT else unknown
        inside = f"nsenter --net={path.source.netns} ip neigh del {ip.text} dev {path.source.owner.ifname}"
        yield state("gateway", ip.text, f"{evidence} ({entry.state})", inside)


def _is_bridged(host: Host, path: Connection, incoming: Link) -> Generator[Hop, None, bool]:
    """Yields the hops where the bridge leads from container to container; returns False where the host routes."""
    own = lookups.next_hop(host.rtnl, path.target_ip)
    if not isinstance(own, NetlinkError) and own.is_local:
        if path.target is None:
            return False
        yield unknown("bridge", path.target_ip.text, f"this node has the address of {path.target.name} as well")
    source, target = host.rtnl.find(path.source.host_interface), None
    if path.target is not None and path.target.interface == PRESENT and path.target.host_interface:
        target = host.rtnl.find(path.target.host_interface)
    if source is None or target is None or not source.master or target.master != source.master:
        yield _on_segment(host, path, incoming)
        return True
    if source.isolated and target.isolated:
        if not any(sysctl.read(key.format(incoming.name)) == "1" for key in PROXIES[path.family]):
            evidence = f"{source.name} and {target.name} are isolated ports: they exchange no frames"
            yield stops("bridge", incoming.name, evidence, "bridge -d link show (portIsolation, ingressPolicy)")
            return True
        yield passes("bridge", incoming.name, "the ports are isolated, and the node routes between them (proxy ARP)")
        return False
    yield passes("bridge", incoming.name, f"from port {source.name} to port {target.name}")
    yield from forwarding.policy(path)
    if sysctl.read(NF_CALL[path.family]) == "1":
        yield from forwarding.firewall(host, path, incoming)
    assert path.target is not None
    yield from _in_container(path, path.target)
    return True


def _on_segment(host: Host, path: Connection, incoming: Link) -> Hop:
    """Returns the hop to an address that the container takes for a neighbour, and that no container there has."""
    route = lookups.next_hop(host.container_rtnl, path.target_ip)
    index = route.ifindex if not isinstance(route, NetlinkError) else 0
    entry = lookups.neighbour(host.container_rtnl, index, path.target_ip)
    evidence = f"no attachment of this node has it on {incoming.name}"
    if entry is not None and entry.state == lookups.FAILED:
        return stops(
            "bridge", path.target_ip.text, f"{evidence}, and nobody has answered for it (FAILED)", "podwire ps"
        )
    return unknown("bridge", path.target_ip.text, f"{evidence}: another device there may", "podwire ps")


def _routed(host: Host, path: Connection, incoming: Link, seen: Sequence[Attached]) -> Iterator[Hop]:
    for hop in forwarding.service(host, path):
        yield hop
        return
    for hop, translated in forwarding.host_port(host, path):
        yield hop
        path = translated._replace(target=holder_of(seen, translated.target_ip))
    route = yield from forwarding.route(host, path, incoming)
    if route is None:
        return
    if route.is_local:
        yield from arriving.listener(path)
        return
    yield from forwarding.policy(path)
    yield from forwarding.firewall(host, path, incoming)
    out = host.rtnl.find_at(route.ifindex)
    assert out is not None, "forwarding.route has found it"
    yield from forwarding.masquerade(host, path, out)
    if path.target is None or path.target.interface != PRESENT:
        yield from arriving.remote(host, path, route)
        return
    port = host.rtnl.find(path.target.host_interface) if path.target.host_interface else None
    if port is not None and out.ifindex not in (port.ifindex, port.master) and out.kind != "vlan":
        evidence = f"the route is by {out.name}, and {path.target.name} is behind {port.name}"
        yield stops("route", path.target_ip.text, evidence, leaving.repair(path.target))
        return
    yield from _in_container(path, path.target)


def _in_container(path: Connection, target: Attached) -> Iterator[Hop]:
    yield from leaving.as_made(target)
    with opened_host() as host:
        yield from arriving.local(host, path, target)


def stop_of(hops: Sequence[Hop]) -> Hop | None:
    """Returns the hop that stops the connection, None if none that can be read does."""
    return next((hop for hop in hops if hop.state == STOPS), None)
