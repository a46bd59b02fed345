"""Peers that answer neither ICMP echo nor TCP, by what the nodes themselves answer."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.overlay.peer import UNREACHED, are_all, devices_of, names_of, share_of
from cni.diag.node import knock
from cni.diag.node.echo import Probe, answered
from cni.diag.node.links import addresses
from cni.diag.node.reverse import drops_answers
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.ailments.overlay.peer import Peer
    from cni.protocol.address import IP

NOT_PERMITTED = os.strerror(errno.EPERM)  # the kernel's answer to a sender whose packet the hook output drops


class Silent(Record):
    """Silent peers: whose answers rp_filter drops; who does not answer without the tunnel either; to whose tunnel's
    port this node's firewall lets nothing out; whose port refuses a datagram, with the error by address; and the
    others, whose tunnel seems to be filtered.
    """

    dropped: list[Peer]
    dead: list[Peer]
    kept_back: list[Peer]
    closed: list[Peer]
    refusals: dict[IP, str]
    filtered: list[Peer]

    def without(self, peers: Sequence[Peer]) -> Silent:
        """Returns the same but for peers whose silence has another reason."""
        dead, filtered = ([peer for peer in group if peer not in peers] for group in (self.dead, self.filtered))
        return self._replace(dead=dead, filtered=filtered)


def classified(silent: Sequence[Peer], seconds: float) -> Silent:
    """Returns the peers by reason. Sends packets, each kind for that many seconds at most. Raises OSError."""
    dropped = [peer for peer in silent if drops_answers(peer.public_ip, peer.own_ip, peer.underlay)]
    doubted = [peer for peer in silent if peer not in dropped]
    nodes = [peer.public_ip for peer in doubted]
    alive = {probe.ip for probe in answered(map(Probe, nodes), seconds)}
    alive |= knock.answering([ip for ip in nodes if ip not in alive], seconds)
    dead = [peer for peer in doubted if peer.public_ip not in alive]
    tunnelled = [peer for peer in doubted if peer.public_ip in alive and peer.port]
    refusals: dict[IP, str] = {}
    for port in sorted({peer.port for peer in tunnelled}):
        refusals |= knock.refusals([peer.public_ip for peer in tunnelled if peer.port == port], port, seconds)
    filtered = [peer for peer in tunnelled if peer.public_ip not in refusals]
    kept_back = [peer for peer in tunnelled if refusals.get(peer.public_ip) == NOT_PERMITTED]
    closed = [peer for peer in tunnelled if peer not in filtered and peer not in kept_back]
    return Silent(dropped, dead, kept_back, closed, refusals, filtered)


def ailments(silent: Silent, total: int) -> Iterator[Ailment]:
    """Yields an ailment for each reason, of `total` peers in all."""
    if silent.dropped:
        peer = silent.dropped[0]
        yield Ailment(
            "rp-filter-drops",
            peer.underlay,
            f"rp_filter is strict there, and the route to {names_of(silent.dropped)} leaves by another interface",
            UNREACHED,
            f"sysctl -w net.ipv4.conf.{peer.underlay}.rp_filter=2 (or a route by {peer.underlay})",
            f"ip route get {peer.public_ip.text}; sysctl net.ipv4.conf.all.rp_filter",
        )
    if silent.dead:
        yield _dead(silent.dead, total)
    if silent.kept_back:
        yield _kept_back(silent.kept_back, total)
    tunnelled = [*silent.closed, *silent.filtered]
    for port in sorted({peer.port for peer in tunnelled}):
        silence = f"no answer by {devices_of(tunnelled)}, while the node itself answers; UDP port {port}"
        yield from _closed([peer for peer in silent.closed if peer.port == port], silence, silent.refusals, total)
        yield from _filtered([peer for peer in silent.filtered if peer.port == port], silence, total)


def _dead(dead: Sequence[Peer], total: int) -> Ailment:
    """Returns the ailment of nodes that are silent themselves. Raises OSError."""
    silence = f"no answer to ICMP echo and TCP by {devices_of(dead)}, nor from the node itself"
    remedy = "start the node (a firewall of its own may swallow both); remove its lease once it is gone"
    if are_all(dead, total):
        remedy = "look at this node's link, routes and firewall"
    elif total == 1:
        remedy += "; if it runs, look at this node's link, routes and firewall"
    own = {address.partition("/")[0] for _, address in addresses()}
    lacking = sorted({peer.own_ip.text for peer in dead} - own)
    if lacking:
        silence += f"; no interface of this node has {', '.join(lacking)}, to which they answer"
        remedy = "give this node its address back, or correct its public IP (--public-ip, the nodes file)"
    evidence, proof = f"{share_of(dead, total)}: {silence}", f"ping -c 1 {dead[0].public_ip.text}"
    return Ailment("peer-unreachable", names_of(dead), evidence, UNREACHED, remedy, proof)


def _kept_back(peers: Sequence[Peer], total: int) -> Ailment:
    """Returns the ailment of a firewall that lets nothing out to the tunnel's port."""
    return Ailment(
        "tunnel-filtered",
        names_of(peers),
        f"{share_of(peers, total)}: this node's own firewall lets nothing out to UDP port {peers[0].port}",
        UNREACHED,
        f"accept UDP port {peers[0].port} in this node's firewall, hook output",
        "nft list ruleset | grep -A5 'hook output'; iptables -S OUTPUT",
    )


def _closed(peers: Sequence[Peer], silence: str, refusals: dict[IP, str], total: int) -> Iterator[Ailment]:
    if peers:
        yield Ailment(
            "tunnel-closed",
            names_of(peers),
            f"{share_of(peers, total)}: {silence} there: {refusals[peers[0].public_ip]}",
            UNREACHED,
            "start podwired there, or accept the port in that node's firewall",
            f"ping -c 1 {peers[0].target.text}; ss -lun sport = :{peers[0].port} (on that node)",
        )


def _filtered(peers: Sequence[Peer], silence: str, total: int) -> Iterator[Ailment]:
    if peers:
        where = "that node's firewall, and between the two"
        if are_all(peers, total):
            where = "this node's firewall"
        elif total == 1:
            where = "the firewalls of both nodes, and between the two"
        yield Ailment(
            "tunnel-filtered",
            names_of(peers),
            f"{share_of(peers, total)}: {silence} is filtered, or its answers are",
            UNREACHED,
            f"accept UDP port {peers[0].port} in {where}",
            f"ping -c 1 {peers[0].target.text}; nft list ruleset; iptables -S INPUT (on both nodes)",
        )
