"""Host ports that a process of the host listens on, too: from outside it is not reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.node.attachments import PRESENT
from cni.diag.node.sockets import LISTENING, holder, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

PUBLISHERS = ("conmon", "docker-proxy", "rootlessport", "slirp4netns", "pasta")  # processes of a port's container


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields an ailment for each port that both have."""
    sockets = {protocol: listening(protocol) for protocol in LISTENING}
    for attached in node.attached:
        for text in attached.ports if attached.interface == PRESENT else ():
            host, _, rest = text.partition("->")
            port, protocol = host.rpartition(":")[2], rest.rpartition("/")[2]
            inode = sockets.get(protocol, {}).get(int(port) if port.isdecimal() else 0)
            process = holder(inode) if inode is not None else None
            if process is not None and not process[1].startswith(PUBLISHERS):
                yield Ailment(
                    "host-port-taken",
                    f"{protocol} port {port} of {attached.name}",
                    f"process {process[0]} ({process[1]}) listens on the same port of the host",
                    "from other hosts the port leads to the pod, and that process is not reached",
                    "if that process is to be reached, give it or the pod another port",
                    f"ss -lnp{protocol[0]} sport = :{port}",
                )
