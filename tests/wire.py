"""First packets of connections between any addresses, sent and received as they are on the wire, without a host behind.

All ends are behind one cable of a node, which forwards what comes from one of them to another, or takes it in.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from cni.protocol.address import parse_ip
from tests.forkserver import enter_net

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.protocol.address import IP
    from tests.machine import Machine

LINK, ENDS = "cable", "ends"
MACS = {LINK: "02:00:00:00:00:01", ENDS: "02:00:00:00:00:02"}
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}
MARKER = parse_ip("198.51.100.1"), parse_ip("198.51.100.2")  # nobody is there
PORTS = range(10_000, 60_000)
SECONDS = 20.0
ETH_P_ALL, ETH_P_IP, ETH_P_IPV6, PACKET_OUTGOING = 3, 0x0800, 0x86DD, 4  # linux/if_ether.h, if_packet.h


class Probe(NamedTuple):
    """A first packet: a SYN, a datagram, or an INIT of SCTP."""

    source: IP
    destination: IP
    protocol: str
    port: int


def lay(machine: Machine, ends: Iterable[IP], own: Iterable[IP]) -> str:
    """Makes the cable: behind it are these ends; the node has addresses of its own. Returns the place of the ends."""
    pod = machine.pod(ENDS)
    machine.run(*f"ip link add {LINK} address {MACS[LINK]} type veth peer name eth0 netns {pod.name}".split())
    pod.run("sh", "-ec", f"ip link set eth0 address {MACS[ENDS]} up")
    lines = [
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.netfilter.nf_conntrack_checksum=0",
        f"sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{LINK}.rp_filter=0 net.ipv4.conf.all.send_redirects=0",
        f"ip link set {LINK} up",
        *[f"ip address add {ip.text} dev lo" for ip in own],
    ]
    for ip in (*ends, *MARKER):
        lines.append(f"ip -{ip.family} route add {ip.text} dev {LINK}")
        lines.append(f"ip -{ip.family} neigh add {ip.text} lladdr {MACS[ENDS]} dev {LINK} nud permanent")
    machine.run("sh", "-ec", "\n".join(lines))
    return pod.path


class Wire:
    """The ends, in a process that is in the node's namespace."""

    def __init__(self, path: str) -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # on one processor, packets arrive in their order
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        enter_net(path)
        self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._sender.bind(("eth0", 0))
        self._ends = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        enter_net(f"/proc/self/fd/{home}")
        os.close(home)
        self._node: dict[socket.socket, socket.AddressFamily] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            self._node |= {socket.socket(family, socket.SOCK_RAW, number): family for number in NUMBERS.values()}
        for raw_socket in (self._ends, *self._node):
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            raw_socket.setblocking(False)
        self._numbers = count()

    def arrive(self, probes: Sequence[Probe]) -> list[bool]:
        """Sends all; returns which of them arrive. Raises TimeoutError."""
        ports = [PORTS[next(self._numbers) % len(PORTS)] for _ in (*probes, None)]
        for probe, port in zip((*probes, Probe(*MARKER, "TCP", 80)), ports, strict=True):
            self._sender.send(packet(probe, port))
        arrived, end = set[int](), time.monotonic() + SECONDS
        while ports[-1] not in arrived:
            if time.monotonic() > end:
                raise TimeoutError("the last packet does not arrive")
            for ready in select.select([self._ends, *self._node], [], [], 0.1)[0]:
                arrived.update(self._ports_at(ready))
        for ready in self._node:
            arrived.update(self._ports_at(ready))
        return [port in arrived for port in ports[:-1]]

    def _ports_at(self, place: socket.socket) -> Iterable[int]:
        """Yields the source ports of what has arrived."""
        while True:
            try:
                data, address = place.recvfrom(2048)
            except BlockingIOError:
                return
            if place is self._ends:
                if address[2] == PACKET_OUTGOING:
                    continue
                start, protocol = (34, data[23]) if address[1] == ETH_P_IP else (54, data[20])
                if address[1] not in (ETH_P_IP, ETH_P_IPV6) or protocol not in NUMBERS.values():
                    continue
            else:
                start = 20 if self._node[place] == socket.AF_INET else 0
            yield struct.unpack_from(">H", data, start)[0]


def packet(probe: Probe, port: int) -> bytes:
    """Returns the frame from an end to the node."""
    ports = struct.pack(">HH", port, probe.port)
    layers = {
        "TCP": struct.pack(">IIBBHHH", 1, 0, 0x50, 0x02, 1024, 0, 0),
        "UDP": struct.pack(">HH", 8, 0),
        "SCTP": struct.pack(">II", 0, 0) + struct.pack(">BBHIIHHI", 1, 0, 20, 1, 1500, 1, 1, 1),
    }
    content, number = ports + layers[probe.protocol], NUMBERS[probe.protocol]
    macs = b"".join([bytes.fromhex(MACS[name].replace(":", "")) for name in (LINK, ENDS)])
    ends = probe.source.packed + probe.destination.packed
    if probe.source.family == 6:
        head = struct.pack(">IHBB", 6 << 28, len(content), number, 64)
        return macs + struct.pack(">H", ETH_P_IPV6) + head + ends + content
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(content), 0, 0, 64, number, 0) + ends
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return macs + struct.pack(">H", ETH_P_IP) + head[:10] + struct.pack(">H", total) + head[12:] + content
