"""Checksums that are left to an interface, and that nobody adds on the way to peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.overlay.peer import devices_of, names_of, share_of
from cni.diag.node import knock, syn
from cni.kernel.ethtool import leaves_checksums

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.ailments.overlay.peer import Peer

ROUNDS = 2
CONNECTIONS, SOCKETS = 5, 500  # to each peer in a round, and in all: lost packets are no evidence


def corrupted(silent: Sequence[Peer], seconds: float) -> list[Peer]:
    """Returns those of the peers that do not answer TCP, at which SYNs arrive if their checksums are complete, and
    never if these are left to the interface. A firewall drops both. Sends packets; where there are such peers it waits
    twice `seconds`. Raises OSError.
    """
    leaving = {device for device in sorted({peer.device for peer in silent}) if _leaves(device)}
    suspects = [peer for peer in silent if peer.device in leaving]
    for _ in range(ROUNDS):
        complete = syn.answered([peer.target for peer in suspects], knock.CLOSED_PORT, seconds)
        suspects = [peer for peer in suspects if peer.target in complete]
        times = min(CONNECTIONS, SOCKETS // max(len(suspects), 1))
        errors = knock.connection_errors([peer.target for peer in suspects] * times, seconds)
        suspects = [peer for peer in suspects if peer.target not in errors]
    return suspects


def _leaves(device: str) -> bool:
    try:
        return leaves_checksums(device)
    except OSError:  # it is gone
        return False


def ailments(peers: Sequence[Peer], total: int) -> Iterator[Ailment]:
    """Yields one ailment for all of these peers, if there are any."""
    if not peers:
        return
    names = sorted({peer.device for peer in peers})
    feature = {peer.device: "tx-checksum-ip-generic" if peer.port else "tx" for peer in peers}
    remedies = [f"ethtool -K {name} {feature[name]} off" for name in names]
    has_tunnel = any(peer.port for peer in peers)
    lasting = "podwired --tunnel-checksum-offload=false does it for good" if has_tunnel else "again after each boot"
    shown = [f"ethtool -k {name}" for name in names]
    yield Ailment(
        "checksum-offload",
        devices_of(peers),
        f"{share_of(peers, total)}, {names_of(peers)}: a TCP SYN with a complete checksum is answered, and never one"
        " whose checksum is left to the interface",
        "TCP and UDP to pods of these nodes time out, so do services and DNS, while ping works",
        f"{'; '.join(remedies)} ({lasting}; look at the other nodes, too)",
        f"{'; '.join([*shown, 'nstat -az TcpInCsumErrors UdpInCsumErrors'])} (the last on that node)",
    )
