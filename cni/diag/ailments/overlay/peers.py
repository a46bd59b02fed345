"""Nodes that are not reached, by packets through the overlay to each: the node, its tunnel's port, the path's MTU."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.attachments import some
from cni.diag.ailments.overlay import diverted, offload, silent
from cni.diag.ailments.overlay.peer import UNREACHED, names_of, peer_name, routed_peers, served_peers
from cni.diag.node import knock
from cni.diag.node.echo import HEADER, IP_HEADERS, Probe, answered

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.ailments.ailment import NodeView
    from cni.diag.ailments.overlay.peer import Peer

MOST = 500  # peers that are asked; of more, a random choice
SECONDS, SHORT_SECONDS = 0.9, 0.3
# MTUs that networks have: clouds, Ethernet, PPPoE, tunnels; IPv6's least one; what any IPv4 host takes.
USUAL_MTUS = (8951, 1500, 1492, 1480, 1476, 1460, 1450, 1440, 1430, 1420, 1412, 1400, 1380, 1350, 1300, 1280, 1200, 576)
PROOF = "podwired status"


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
    answering = alive | {ip for ip, error in errors.items() if error in knock.ANSWERS}
    doubted = [peer for peer in peers if errors.get(peer.target) not in knock.ANSWERS and peer.port]
    apart = diverted.diverted(doubted)
    yield from diverted.ailments(apart)
    peers = [peer for peer in peers if peer not in apart]
    quiet = silent.classified([peer for peer in peers if peer.target not in answering], SHORT_SECONDS)
    # Last: a node limits the rate of its refusals, and each packet to a closed port takes one.
    suspects = [peer for peer in peers if peer.target in alive and peer.target not in errors]
    corrupted = offload.corrupted([*suspects, *quiet.dead, *quiet.filtered], SHORT_SECONDS)
    yield from offload.ailments(corrupted, total)
    yield from silent.ailments(quiet.without(corrupted), total)
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
            UNREACHED,
            "Backend.Type vxlan, or a network that all nodes are in",
            PROOF,
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
