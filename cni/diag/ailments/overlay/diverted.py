"""Peers to which the kernel's route is not podwired's: another route, or a rule for this node's own addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.overlay.peer import UNREACHED, names_of
from cni.diag.node.here import opened_host
from cni.diag.node.lookups import next_hop
from cni.kernel.netlink import NetlinkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.diag.ailments.overlay.peer import Peer
    from cni.effects.host import Host


def diverted(peers: Sequence[Peer]) -> dict[Peer, str]:
    """Returns the peers whose packets do not leave by the device that podwired has for them, each with the reason.
    Raises OSError.
    """
    with opened_host() as host:
        reasons = {peer: _reason(host, peer) for peer in peers}
    return {peer: reason for peer, reason in reasons.items() if reason}


def _reason(host: Host, peer: Peer) -> str:
    text = peer.target.text
    answer = next_hop(host.rtnl, peer.target)
    source = answer.source if not isinstance(answer, NetlinkError) else None
    if source is not None:  # with which the kernel looks again
        answer, text = next_hop(host.rtnl, peer.target, source), f"{text} from {source.text}"
    if isinstance(answer, NetlinkError):
        return f"the kernel refuses to route to {text}: {answer}"
    link = host.rtnl.find_at(answer.ifindex)
    is_own = link is None or link.name == peer.device
    return "" if is_own else f"the route to {text} is by {link.name if link else ''}, not by {peer.device}"


def ailments(reasons: Mapping[Peer, str]) -> Iterator[Ailment]:
    """Yields one ailment for all, with the first one's reason."""
    for peer, reason in list(reasons.items())[:1]:
        yield Ailment(
            "route-diverted",
            names_of([*reasons]),
            reason,
            UNREACHED,
            "remove that route or rule; podwired restores its own",
            f"ip route get {peer.target.text}; ip route show table all; ip rule",
        )
