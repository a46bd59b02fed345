"""The last hops: another container of this node, or the overlay, the underlay and the neighbour behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.asking import NoAnswer, ask
from cni.diag.node import lookups
from cni.diag.path import leaving, sockets
from cni.diag.path.ends import ICMP
from cni.diag.path.hop import passes, stops, unknown
from cni.effects.journal import FAILURES
from cni.kernel import rtnl, rtnl_overlay
from cni.kernel.netlink import NetlinkError
from cni.protocol.address import mac_text, parse_net
from cni.protocol.control import STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.node.attachments import Attached
    from cni.diag.node.lookups import NextHop
    from cni.diag.path.ends import Connection
    from cni.diag.path.hop import Hop
    from cni.effects.host import Host
    from cni.kernel.rtnl_parse import Link
    from cni.protocol.address import IP

AGENT = "podwired maintains it: podwired status"


def local(host: Host, path: Connection, target: Attached) -> Iterator[Hop]:
    """Yields the hops to a container of this node; `host` has no container open. Raises NetlinkError, OSError."""
    if not target.host_interface:
        yield unknown("veth", target.name, leaving.NO_PAIR)
        return
    port = host.rtnl.find(target.host_interface)
    if port is None or not port.up:
        state = "down" if port is not None else "gone"
        yield stops("veth", target.host_interface, state, leaving.repair(target))
        return
    bridge = host.rtnl.find_at(port.master)
    yield passes("veth", port.name, f"up, port of {bridge.name}" if bridge is not None else "up, routed")
    lack = leaving.opened(host, target)
    if lack is not None:
        yield lack
        return
    link, hop = leaving.usable(host, target, path.target_ip)
    yield hop
    if link is None:
        return
    subject = f"{target.owner.ifname} in {target.name}"
    back = lookups.next_hop(host.container_rtnl, path.source_ip, path.target_ip)
    if isinstance(back, NetlinkError):
        yield stops("return route", subject, f"no route to {path.source_ip.text}: {back}", leaving.repair(target))
        return
    with host.in_container:
        yield from listener(path, target.name)


def listener(path: Connection, container: str = "") -> Iterator[Hop]:
    """Yields who listens at the destination in the namespace of this thread, which is that of a container, or, without
    its name, of the node. Raises OSError.
    """
    if path.protocol == ICMP:
        return
    name, where = container or "this node", f"in {container}" if container else "on this node"
    subject = f"{path.target_ip.text} {path.traffic}"
    listening = sockets.is_bound(path.protocol, path.target_ip, path.port)
    if listening is None:
        yield unknown("socket", subject, f"{name}: the kernel does not list sockets of {path.protocol}")
    elif listening:
        yield passes("socket", subject, f"{name} listens")
    else:
        remedy = "look at the program in the container" if container else "look at the program: ss -ln"
        yield stops("socket", subject, f"nobody listens {where}", remedy)


def remote(host: Host, path: Connection, route: NextHop) -> Iterator[Hop]:
    """Yields the hops behind the host's route to an address that is not on this node. Raises NetlinkError, OSError."""
    link = host.rtnl.find_at(route.ifindex)
    assert link is not None, "forwarding.route has found it"
    tunnel = rtnl_overlay.parse_vxlan(host.rtnl.ask(*rtnl.get_link_at(link.ifindex)))
    if tunnel is None:
        yield next_neighbour(host, link, route.gw or path.target_ip)
    else:
        yield from _overlay(host, link, route.gw or path.target_ip, f"VNI {tunnel.vni}, UDP port {tunnel.port}")
    yield from _peer(path.target_ip)


def _overlay(host: Host, device: Link, gateway: IP, settings: str) -> Iterator[Hop]:
    """Yields device, neighbour, FDB entry and underlay of a tunnel."""
    yield passes("overlay", device.name, f"up, {settings}, MTU {device.mtu}")
    entry = lookups.neighbour(host.rtnl, device.ifindex, gateway)
    if entry is None or not entry.mac:
        yield stops("neighbour", gateway.text, f"no MAC address of the peer's VTEP on {device.name}", AGENT)
        return
    mac = mac_text(entry.mac)
    yield passes("neighbour", gateway.text, f"{mac} on {device.name} ({entry.state})")
    vteps = lookups.vteps(host.rtnl, device.ifindex, entry.mac)
    if not vteps:
        yield stops("fdb", mac, f"no FDB entry on {device.name}: the VTEP is not known", AGENT)
        return
    yield passes("fdb", mac, f"VTEP {vteps[0].text}")
    answer = lookups.next_hop(host.rtnl, vteps[0])
    underlay = None if isinstance(answer, NetlinkError) else host.rtnl.find_at(answer.ifindex)
    if isinstance(answer, NetlinkError) or underlay is None or not underlay.up:
        reason = str(answer) if isinstance(answer, NetlinkError) else "its interface is down"
        yield stops("underlay", vteps[0].text, f"no route to the VTEP: {reason}", f"ip route get {vteps[0].text}")
        return
    via = f"via {answer.gw.text} " if answer.gw is not None else ""
    yield passes(
        "underlay", vteps[0].text, f"{via}by {underlay.name}, from {answer.source.text if answer.source else '-'}"
    )
    yield next_neighbour(host, underlay, answer.gw or vteps[0])


def next_neighbour(host: Host, link: Link, ip: IP) -> Hop:
    """Returns the hop to a neighbour on a link."""
    entry = lookups.neighbour(host.rtnl, link.ifindex, ip)
    if entry is None:
        return passes("neighbour", ip.text, f"on {link.name}, not asked for yet")
    if entry.state in (lookups.FAILED, lookups.INCOMPLETE):
        evidence = f"it has not answered on {link.name} ({entry.state})"
        return stops("neighbour", ip.text, evidence, f"is it up, and on the network of {link.name}? ping {ip.text}")
    return passes("neighbour", ip.text, f"{mac_text(entry.mac)} on {link.name} ({entry.state})")


def _peer(ip: IP) -> Iterator[Hop]:
    """Yields the peer whose lease has the address, where podwired runs, and where its part can be traced."""
    try:
        peers = ask("", ask=STATUS).get("peers", ())
    except (NoAnswer, *FAILURES):
        peers = ()
    for peer in peers:
        subnets = [endpoint["subnet"] for endpoint in peer["endpoints"]]
        if any(parse_net(subnet).contains(ip) for subnet in subnets if parse_net(subnet).family == ip.family):
            evidence = f"the lease of {', '.join(subnets)}: {peer['state']}"
            yield passes("peer", str(peer["key"]), f"{evidence}; its node's part: podwire trace there")
            return
