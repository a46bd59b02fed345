"""Nodes that are not reached, by packets through the overlay to each: the node, its tunnel's port, the path's MTU."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.attachments import some
from cni.diag.ailments.overlay import offload
from cni.diag.ailments.overlay.peer import (
    are_all,
    devices_of,
    names_of,
    peer_name,
    routed_peers,
    served_peers,
    share_of,
)
from cni.diag.node import knock
from cni.diag.node.echo import HEADER, IP_HEADERS, Probe, answered
from cni.diag.node.reverse import drops_answers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.ailments.ailment import NodeView
    from cni.diag.ailments.overlay.peer import Peer

MOST = 500  # peers that are asked; of more, a random choice
SECONDS, SHORT_SECONDS = 0.9, 0.3
# MTUs that networks have: clouds, Ethernet, PPPoE, tunnels; IPv6's least one; what any IPv4 host takes.
USUAL_MTUS = (8951, 1500, 1492, 1480, 1476, 1460, 1450, 1440, 1430, 1420, 1412, 1400, 1380, 1350, 1300, 1280, 1200, 576)
PROOF = "podwired status"
CONSEQUENCE = "pods of these nodes are not reached"


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields an ailment for each reason why peers are not reached. Sends packets. Raises OSError."""
    yield from _without_route(node)
    peers = list(routed_peers(node))
    if len(peers) > MOST:
        peers = random.sample(peers, MOST)
    large = {peer: Probe(peer.target, peer.size) for peer in peers}
    replied = answered([*large.values(), *[Probe(peer.target) for peer in peers]], SECONDS)
    alive = {probe.ip for probe in replied}
    total = len({peer.name for peer in peers})
    errors = knock.connection_errors([peer.target for peer in peers], SHORT_SECONDS)
    corrupted = offload.corrupted([peer for peer in peers if peer.target not in errors], SHORT_SECONDS)
    yield from offload.ailments(corrupted, total)
    answering = alive | {ip for ip, error in errors.items() if error in knock.ANSWERS}
    yield from _unreached([peer for peer in peers if peer.target not in answering and peer not in corrupted], total)
    yield from _too_large([peer for peer in peers if peer.target in alive and large[peer] not in replied])


def _without_route(node: NodeView) -> Iterator[Ailment]:
    """Yields the peers that podwired has no route to: behind a router, without a tunnel."""
    names = [
        f"{peer_name(peer)} ({endpoint['public_ip']})"
        for peer in served_peers(node)
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


def _unreached(silent: Sequence[Peer], total: int) -> Iterator[Ailment]:
    """Yields who does not answer at all, and whose tunnel does not, by the reason that can be seen."""
    filtered = [peer for peer in silent if drops_answers(peer.public_ip, peer.own_ip, peer.underlay)]
    if filtered:
        yield Ailment(
            "rp-filter-drops",
            filtered[0].underlay,
            f"rp_filter is strict there, and the route to {names_of(filtered)} leaves by another interface",
            CONSEQUENCE,
            f"sysctl -w net.ipv4.conf.{filtered[0].underlay}.rp_filter=2 (or a route by {filtered[0].underlay})",
            f"ip route get {filtered[0].public_ip.text}; sysctl net.ipv4.conf.all.rp_filter",
        )
    doubted = [peer for peer in silent if peer not in filtered]
    nodes = [peer.public_ip for peer in doubted]
    alive = {probe.ip for probe in answered(map(Probe, nodes), SHORT_SECONDS)}
    alive |= knock.answering([ip for ip in nodes if ip not in alive], SHORT_SECONDS)
    dead = [peer for peer in doubted if peer.public_ip not in alive]
    if dead:
        there = "start the node (a firewall of its own may swallow both); remove its lease once it is gone"
        remedy = "look at this node's link and routes" if are_all(dead, total) else there
        yield Ailment(
            "peer-unreachable",
            names_of(dead),
            f"{share_of(dead, total)}: no answer to ICMP echo and TCP by {devices_of(dead)}, nor from the node itself",
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
    silence = f"no answer by {devices_of(peers)}, while the node itself answers"
    if closed:
        yield Ailment(
            "tunnel-closed",
            names_of(closed),
            f"{share_of(closed, total)}: {silence}; UDP port {port} there: {refused[closed[0].public_ip]}",
            CONSEQUENCE,
            "start podwired there, or accept the port in that node's firewall",
            f"ping -c 1 {closed[0].target.text}; ss -lun sport = :{port} (on that node)",
        )
    if filtered:
        where = "this node's firewall" if are_all(filtered, total) else "that node's firewall, and between the two"
        yield Ailment(
            "tunnel-filtered",
            names_of(filtered),
            f"{share_of(filtered, total)}: {silence}; UDP port {port} is filtered, or its answers are",
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
            names_of(peers),
            f"packets of {peer.size} bytes by {peer.device} are lost without an error, those of {max(passed)} arrive",
            "connections to pods of these nodes stall once they send much",
            f"ip link set {peer.underlay} mtu {mtu} (on both nodes; or Backend.MTU of the network)",
            f"ping -c 1 -M do -s {data} {peer.target.text}",
        )
