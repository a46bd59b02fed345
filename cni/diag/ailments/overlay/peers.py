"""Nodes that are not reached, by packets through the overlay to each: the node, its tunnel's port, the path's MTU."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.attachments import some
from cni.diag.node import knock
from cni.diag.node.attachments import PRESENT
from cni.diag.node.echo import HEADER, IP_HEADERS, Probe, answered
from cni.diag.node.links import OVERHEAD
from cni.diag.node.reverse import drops_answers
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.ailments.ailment import NodeView
    from cni.protocol.address import IP

    Json = dict[str, Any]

MOST = 500  # peers that are asked; of more, a random choice
SECONDS, SHORT_SECONDS = 0.9, 0.3
# MTUs that networks have: clouds, Ethernet, PPPoE, tunnels; IPv6's least one; what any IPv4 host takes.
USUAL_MTUS = (8951, 1500, 1492, 1480, 1476, 1460, 1450, 1440, 1430, 1420, 1412, 1400, 1380, 1350, 1300, 1280, 1200, 576)
PROOF = "podwired status"
CONSEQUENCE = "pods of these nodes are not reached"


class Peer(Record):
    """A node's subnet. `target` answers for it: its tunnel's address, which is the subnet's first one, or with direct
    routes the node's own, `public_ip`; `own_ip` is this node's. `device` is the interface that leads there, `underlay`
    that below it; `port` and `overhead` are those of a tunnel, else 0; `size` is the longest packet that pods send, in
    bytes.
    """

    name: str
    own_ip: IP
    public_ip: IP
    target: IP
    device: str
    underlay: str
    port: int
    overhead: int
    size: int


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields an ailment for each reason why peers are not reached. Sends packets. Raises OSError."""
    yield from _without_route(node)
    peers = list(_peers(node))
    if len(peers) > MOST:
        peers = random.sample(peers, MOST)
    large = {peer: Probe(peer.target, peer.size) for peer in peers}
    replied = answered([*large.values(), *[Probe(peer.target) for peer in peers]], SECONDS)
    alive = {probe.ip for probe in replied}
    total = len({peer.name for peer in peers})
    yield from _unreached([peer for peer in peers if peer.target not in alive], total)
    yield from _too_large([peer for peer in peers if peer.target in alive and large[peer] not in replied])


def _without_route(node: NodeView) -> Iterator[Ailment]:
    """Yields the peers that podwired has no route to: behind a router, without a tunnel."""
    names = [
        f"{_name(peer)} ({endpoint['public_ip']})"
        for peer in _served(node)
        for endpoint in peer["endpoints"]
        if peer["state"] == "unreachable" and endpoint["way"] is None
    ]
    if names:
        yield Ailment(
            "peer-without-route",
            some(names),
            "these nodes are in no network of this node, and there is no tunnel to them",
            CONSEQUENCE,
            "Backend.Type vxlan, or a network that all nodes are in",
            PROOF,
        )


def _name(peer: Json) -> str:
    """Returns the node's name, where the store has none the key of its lease."""
    return str(peer.get("name") or peer["key"])


def _served(node: NodeView) -> Sequence[Json]:
    return node.agent.get("peers", ()) if node.agent is not None else ()


def _peers(node: NodeView) -> Iterator[Peer]:
    """Yields the peers that have routes, but for those behind an interface that is down, as this is the cause."""
    agent = node.agent or {}
    links = {link.name: link for link in node.links}
    names = {link.ifindex: link.name for link in node.links}
    uplink = links.get((agent.get("uplink") or {}).get("interface", ""))
    tunnels = [links[each["device"]] for each in agent.get("tunnels", ()) if each["device"] in links]
    tunnel_of = {link.tunnel.family: link for link in tunnels if link.tunnel is not None and link.up}
    hosts = {each.host_interface for each in node.attached if each.interface == PRESENT}
    largest = max([link.mtu for link in node.links if link.name in hosts], default=0)
    own = {ip.family: ip for ip in map(parse_ip, (agent.get("lease") or {}).get("public_ips", ()))}
    if uplink is None or not uplink.up:
        return
    for peer in _served(node):
        for endpoint in peer["endpoints"]:
            subnet, public_ip = parse_net(endpoint["subnet"]), parse_ip(endpoint["public_ip"])
            link, own_ip = tunnel_of.get(subnet.family), own.get(public_ip.family, public_ip)
            ends = _name(peer), own_ip, public_ip
            if endpoint["way"] == "direct":
                size = min(uplink.mtu, largest or uplink.mtu)
                yield Peer(*ends, public_ip, uplink.name, uplink.name, 0, 0, size)
            elif endpoint["way"] == "vxlan" and link is not None and link.tunnel is not None:
                below = names.get(link.tunnel.underlay, uplink.name)
                size = min(link.mtu, largest or link.mtu)
                overhead = OVERHEAD[link.tunnel.family]
                yield Peer(*ends, subnet.ip, link.name, below, link.tunnel.port, overhead, size)


def _unreached(silent: Sequence[Peer], total: int) -> Iterator[Ailment]:
    """Yields who does not answer at all, and whose tunnel does not, by the reason that can be seen."""
    targets = knock.answering([peer.target for peer in silent], SHORT_SECONDS)
    doubted = [peer for peer in silent if peer.target not in targets]
    filtered = [peer for peer in doubted if drops_answers(peer.public_ip, peer.own_ip, peer.underlay)]
    if filtered:
        yield Ailment(
            "rp-filter-drops",
            filtered[0].underlay,
            f"rp_filter is strict there, and the route to {_names(filtered)} leaves by another interface",
            CONSEQUENCE,
            f"sysctl -w net.ipv4.conf.{filtered[0].underlay}.rp_filter=2 (or a route by {filtered[0].underlay})",
            f"ip route get {filtered[0].public_ip.text}; sysctl net.ipv4.conf.all.rp_filter",
        )
    doubted = [peer for peer in doubted if peer not in filtered]
    nodes = [peer.public_ip for peer in doubted]
    alive = {probe.ip for probe in answered(map(Probe, nodes), SHORT_SECONDS)}
    alive |= knock.answering([ip for ip in nodes if ip not in alive], SHORT_SECONDS)
    dead = [peer for peer in doubted if peer.public_ip not in alive]
    if dead:
        there = "start the node (a firewall of its own may swallow both); remove its lease once it is gone"
        remedy = "look at this node's link and routes" if _is_all(dead, total) else there
        yield Ailment(
            "peer-unreachable",
            _names(dead),
            f"{_part(dead, total)}: no answer to ICMP echo and TCP by {_devices(dead)}, nor from the node itself",
            CONSEQUENCE,
            remedy,
            f"ping -c 1 {dead[0].public_ip.text}",
        )
    tunnelled = [peer for peer in doubted if peer.public_ip in alive and peer.port]
    for port in sorted({peer.port for peer in tunnelled}):
        yield from _behind([peer for peer in tunnelled if peer.port == port], port, total)


def _behind(peers: Sequence[Peer], port: int, total: int) -> Iterator[Ailment]:
    """Yields whose tunnel does not answer while the node does: its port is closed, or filtered on the way."""
    refused = knock.refusals([peer.public_ip for peer in peers], port, SHORT_SECONDS)
    closed = [peer for peer in peers if peer.public_ip in refused]
    filtered = [peer for peer in peers if peer.public_ip not in refused]
    silence = f"no answer by {_devices(peers)}, while the node itself answers"
    if closed:
        yield Ailment(
            "tunnel-closed",
            _names(closed),
            f"{_part(closed, total)}: {silence}; UDP port {port} there: {refused[closed[0].public_ip]}",
            CONSEQUENCE,
            "start podwired there, or accept the port in that node's firewall",
            f"ping -c 1 {closed[0].target.text}; ss -lun sport = :{port} (on that node)",
        )
    if filtered:
        where = "this node's firewall" if _is_all(filtered, total) else "that node's firewall, and between the two"
        yield Ailment(
            "tunnel-filtered",
            _names(filtered),
            f"{_part(filtered, total)}: {silence}; UDP port {port} is filtered, or its answers are",
            CONSEQUENCE,
            f"accept UDP port {port} in {where}",
            f"ping -c 1 {filtered[0].target.text}; nft list ruleset; iptables -S INPUT (on both nodes)",
        )


def _too_large(peers: Sequence[Peer]) -> Iterator[Ailment]:
    """Yields the peers to which short packets pass and not the longest that pods send."""
    for peer in peers[:1]:
        sizes = [size for mtu in USUAL_MTUS if (size := mtu - peer.overhead) < peer.size]
        passed = [probe.size for probe in answered([Probe(peer.target, size) for size in sizes], SHORT_SECONDS)]
        if not passed:
            return  # the length is not the cause
        mtu = max(passed) + peer.overhead
        data = peer.size - IP_HEADERS[peer.target.family] - HEADER
        yield Ailment(
            "path-mtu",
            _names(peers),
            f"packets of {peer.size} bytes by {peer.device} are lost without an error, those of {max(passed)} arrive",
            "connections to pods of these nodes stall once they send much",
            f"ip link set {peer.underlay} mtu {mtu} (on both nodes; or Backend.MTU of the network)",
            f"ping -c 1 -M do -s {data} {peer.target.text}",
        )


def _names(peers: Sequence[Peer]) -> str:
    addresses: dict[str, list[str]] = {}
    for peer in peers:
        addresses.setdefault(peer.name, []).append(peer.public_ip.text)
    return some([f"{name} ({', '.join(texts)})" for name, texts in addresses.items()])


def _devices(peers: Sequence[Peer]) -> str:
    return " and ".join(sorted({peer.device for peer in peers}))


def _part(peers: Sequence[Peer], total: int) -> str:
    return f"{len({peer.name for peer in peers})} of {total} peers"


def _is_all(peers: Sequence[Peer], total: int) -> bool:
    """Returns True if several peers fail alike, and none does not: the cause is on this node."""
    return len({peer.name for peer in peers}) == total > 1
