"""The sockets of a network namespace, as /proc lists them (kernel net/ipv4/tcp_ipv4.c, tcp4_seq_show)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cni.diag.path.ends import TCP, UDP
from cni.protocol.address import IP, MAPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = "/proc/thread-self/net"
LISTENING = {TCP: "0A", UDP: "07"}  # TCP_LISTEN; of UDP a socket that is not connected
ANY = (IP(4, 0), IP(6, 0))
WORD = 4  # bytes; each is in the host's order


def is_bound(protocol: str, ip: IP, port: int) -> bool | None:
    """Returns True if a socket in the namespace of this thread listens at the address; None if nothing lists it.

    Raises OSError.
    """
    if protocol not in LISTENING or not os.path.exists(f"{FOLDER}/{protocol}"):
        return None
    wanted = (ip, *ANY)
    return any(bound in wanted and number == port for bound, number in _bound(protocol))


def _bound(protocol: str) -> Iterator[tuple[IP, int]]:
    """Yields address and port of all listening sockets of a protocol."""
    for name in (protocol, f"{protocol}6"):
        try:
            with open(f"{FOLDER}/{name}", encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except FileNotFoundError:
            continue
        for row in rows:
            if row[3] == LISTENING[protocol]:
                address, _, port = row[1].partition(":")
                yield _address(address), int(port, 16)


def _address(text: str) -> IP:
    data = bytes.fromhex(text)
    words = [data[start : start + WORD] for start in range(0, len(data), WORD)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    packed = b"".join(words)
    return IP.from_packed(packed.removeprefix(MAPPED) if len(packed) > WORD else packed)
