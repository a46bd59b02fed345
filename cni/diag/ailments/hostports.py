"""Host ports that a process of the host listens on, too: from outside it is not reached."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.node.attachments import PRESENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

LISTENING = {"tcp": "0A", "udp": "07"}  # kernel include/net/tcp_states.h
ANY_ADDRESS = ("00000000", "0" * 32)

PUBLISHERS = ("conmon", "docker-proxy", "rootlessport", "slirp4netns", "pasta")  # processes of a port's container


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields an ailment for each port that both have."""
    sockets = {protocol: _sockets(protocol) for protocol in LISTENING}
    for attached in node.attached:
        for text in attached.ports if attached.interface == PRESENT else ():
            host, _, rest = text.partition("->")
            port, protocol = host.rpartition(":")[2], rest.rpartition("/")[2]
            inode = sockets.get(protocol, {}).get(int(port) if port.isdecimal() else 0)
            holder = _holder(inode) if inode is not None else ""
            if holder:
                yield Ailment(
                    "host-port-taken",
                    f"{protocol} port {port} of {attached.name}",
                    f"{holder} listens on the same port of the host",
                    "from other hosts the port leads to the pod, and that process is not reached",
                    "if that process is to be reached, give it or the pod another port",
                    f"ss -lnp{protocol[0]} sport = :{port}",
                )


def _sockets(protocol: str) -> dict[int, str]:
    """Returns the inode of a socket that listens on any address, by port."""
    listening = {}
    for suffix in ("", "6"):
        try:
            with open(f"/proc/net/{protocol}{suffix}", encoding="ascii") as file:
                lines = [line.split() for line in file][1:]
        except OSError:
            continue
        for fields in lines:
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTENING[protocol] and address in ANY_ADDRESS:
                listening[int(port, 16)] = fields[9]
    return listening


def _holder(inode: str) -> str:
    """Returns name and number of the process that has a socket; empty where it cannot be seen, or is a runtime's that
    keeps a published port from others.
    """
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            sockets = [os.readlink(f"/proc/{name}/fd/{number}") for number in os.listdir(f"/proc/{name}/fd")]
            if f"socket:[{inode}]" in sockets:
                with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                    command = file.read().strip()
                return "" if command.startswith(PUBLISHERS) else f"process {name} ({command})"
        except OSError:
            continue
    return ""
