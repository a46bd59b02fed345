"""Checksums that no interface adds: which answers of peers are evidence, and SYNs that need none to add them."""

from __future__ import annotations

import errno
import socket
from struct import unpack_from
from typing import TYPE_CHECKING

import pytest

from cni.diag.ailments.overlay import offload
from cni.diag.ailments.overlay.peer import Peer
from cni.diag.node import knock, syn
from cni.diag.node.checksum import checksum
from cni.protocol.address import parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.protocol.address import IP

SECONDS = 0.1


def peer(number: int, device: str = "flannel.1") -> Peer:
    node, target = parse_ip(f"192.0.2.{number}"), parse_ip(f"10.244.{number}.0")
    return Peer(f"node{number}", parse_ip("192.0.2.1"), node, target, device, "eth0", 8472, 50, 1450)


class Network:
    """Answers of a peer, by round: to complete SYNs, and to those whose checksum the interface has to add."""

    def __init__(self, complete: tuple[bool, ...], others: tuple[bool, ...] = (False, False)) -> None:
        self._complete, self._others = iter(complete), iter(others)
        self.connections = 0

    def answered(self, ips: Iterable[IP], _port: int, _seconds: float) -> set[IP]:
        return {ip for ip in ips if next(self._complete)}

    def connection_errors(self, ips: Iterable[IP], _seconds: float) -> dict[IP, int]:
        ips = list(ips)
        self.connections += len(ips)
        return {ip: errno.ECONNREFUSED for ip in set(ips) if next(self._others)}


@pytest.mark.parametrize(
    ("network", "is_named"),
    [
        (Network((True, True)), True),
        (Network((False,)), False),
        (Network((True, False)), False),
        (Network((True,), (True,)), False),
        (Network((True, True), (False, True)), False),
    ],
    ids=["complete ones alone arrive", "a firewall", "a chance answer", "a lost packet", "two lost packets"],
)
def test_a_peer_is_named_if_complete_checksums_alone_arrive_each_time(
    monkeypatch: pytest.MonkeyPatch, network: Network, is_named: bool
) -> None:
    monkeypatch.setattr(offload, "leaves_checksums", lambda _: True)
    monkeypatch.setattr(syn, "answered", network.answered)
    monkeypatch.setattr(knock, "connection_errors", network.connection_errors)
    assert offload.corrupted([peer(2)], SECONDS) == [peer(2)] * is_named


def test_an_interface_that_gets_complete_checksums_is_not_suspected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "leaves_checksums", lambda device: device == "eth0")
    network = Network((True, True))
    monkeypatch.setattr(syn, "answered", network.answered)
    monkeypatch.setattr(knock, "connection_errors", network.connection_errors)
    assert offload.corrupted([peer(2), peer(3, "eth0")], SECONDS) == [peer(3, "eth0")]


def test_five_hundred_peers_are_asked_with_as_many_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "leaves_checksums", lambda _: True)
    network = Network((True,) * 500 + (False,) * 500, (False,) * 500)
    monkeypatch.setattr(syn, "answered", network.answered)
    monkeypatch.setattr(knock, "connection_errors", network.connection_errors)
    peers = [peer(2)._replace(target=parse_ip(f"10.{number // 250}.{number % 250}.0")) for number in range(500)]
    assert offload.corrupted(peers, SECONDS) == []
    assert network.connections == 500


@pytest.mark.parametrize(("source", "target"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
def test_the_checksum_of_a_syn_is_complete(monkeypatch: pytest.MonkeyPatch, source: str, target: str) -> None:
    """The sum over pseudo header and segment is 0 then (RFC 9293, 3.1)."""
    monkeypatch.setattr(syn, "_raw_socket", lambda *_: socket.socket(type=socket.SOCK_DGRAM))
    ip, number = parse_ip(target), 7
    with syn._Syn(ip.family, {number: ip}, 40000, knock.CLOSED_PORT) as probe:
        segment = probe._packet(number, ip)
        pseudo = parse_ip(source).packed + ip.packed + bytes([0, socket.IPPROTO_TCP]) + len(segment).to_bytes(2, "big")
        assert checksum(pseudo + segment) == 0
        ports, flags = unpack_from("!HH", segment), segment[13]
        assert (ports, flags, segment[12] >> 4) == ((40000, 9), syn.SYN, len(segment) // 4)
        acknowledged = (int.from_bytes(segment[4:8], "big") + 1) % (1 << 32)
        ports_back = segment[2:4] + segment[:2]
        reset = ports_back + bytes(4) + acknowledged.to_bytes(4, "big") + bytes([0x50, syn.RST | syn.ACK]) + bytes(6)
        assert probe._number(reset) == number
        assert probe._number(segment) is None  # a SYN itself answers nothing
        assert probe._number(reset[:12]) is None


def test_loopback_takes_packets_without_checksums_and_an_interface_that_is_gone_none() -> None:
    assert offload._leaves("lo")
    assert not offload._leaves("none")
