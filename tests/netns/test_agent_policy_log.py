"""Packets that the table of policies denies, as the kernel logs and counts them."""

from __future__ import annotations

import os
import socket
from errno import EPERM
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane.policy_counters import denied_packets
from cni.agent.dataplane.policy_table import is_supported
from cni.agent.policy.basetable import LOG_GROUP, LOGGING, PENDING, base_table
from cni.agent.policy.denials import DENIED, PacketDenied
from cni.agent.runtime import packetlog
from cni.agent.runtime.packetlog import DeniedPackets
from cni.effects import nft_load
from cni.kernel import nft_ruleset
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkError
from cni.kernel.nflog import PacketLog
from cni.plan.nftrule import FILTER, Chain, Hook, Match, Rule, Verdict
from cni.plan.policy import IN, OUT, TABLE
from cni.protocol.address import parse_ip
from tests.machine import Machine
from tests.netns.test_agent_policy import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 5432
BURST = 100  # of packets, of which the kernel logs few
SECONDS = 10.0
Packet = tuple[str, str, str, int, int]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with Machine() as machine:
        machine.run("sh", "-ec", "ip link set lo up; ip address add fd00::1 dev lo nodad")
        if not machine.call(supported):
            pytest.skip("absent: the module nfnetlink_log")
        machine.call(deny_own_packets)
        yield machine


def supported() -> bool:
    """Inside: asks twice, as asking changes nothing."""
    netfilter = Netlink(NETLINK_NETFILTER)
    try:
        return is_supported(netfilter, LOGGING) and is_supported(netfilter, LOGGING)
    finally:
        netfilter.close()


def deny_own_packets() -> None:
    """Inside: makes the table of policies, and leads packets of this host to the chains in which classes end."""
    base = base_table(OPTIONS._replace(log=True))
    rules = [
        Rule((Match("ip daddr", parse_ip("127.0.0.2")), Verdict("goto", DENIED[IN]))),
        Rule((Match("ip6 daddr", parse_ip("fd00::1")), Verdict("goto", DENIED[OUT]))),
        Rule((Match("ip daddr", parse_ip("127.0.0.3")), Verdict("goto", PENDING[IN]))),
    ]
    output = Chain("output", tuple(rules), Hook("filter", "output", FILTER))
    netfilter = Netlink(NETLINK_NETFILTER)
    try:
        nft_load.send(netfilter, nft_ruleset.replace(base._replace(chains=(*base.chains, output))))
    finally:
        netfilter.close()


def send(host: str, count: int = 1) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        for _ in range(count):
            try:
                client.sendto(b"?", (host, PORT))
            except PermissionError:  # a packet that the host itself denies
                continue


def logged(hosts: list[str]) -> list[Packet]:
    """Inside: sends a datagram to each host; returns what was logged, one by one."""
    queue: SimpleQueue[PacketDenied] = SimpleQueue()
    source = DeniedPackets()
    source.start(queue.put)
    try:
        packets = [_await(queue, host) for host in hosts]
        return [
            (packet.chain, packet.source.text, packet.destination.text, packet.protocol, packet.port)
            for packet in packets
        ]
    finally:
        source.close()


def _await(queue: SimpleQueue[PacketDenied], host: str) -> PacketDenied:
    """Sends until a packet is logged: the thread has to begin, and the kernel logs ten in a second."""
    for _ in range(int(SECONDS / 0.5)):
        send(host)
        try:
            while True:
                packet = queue.get(timeout=0.5)
                if packet.destination.text == host:
                    return packet
        except Empty:
            continue
    raise AssertionError(f"no packet to {host} was logged")


def test_each_denied_packet_is_read_with_the_name_of_its_chain(machine: Machine) -> None:
    assert machine.call(logged, ["127.0.0.2", "fd00::1", "127.0.0.3"]) == [
        ("denied-in", "127.0.0.1", "127.0.0.2", 17, PORT),
        ("denied-out", "fd00::1", "fd00::1", 17, PORT),
        ("pending-in", "127.0.0.1", "127.0.0.3", 17, PORT),
    ]


def read_twice() -> tuple[int, bool]:
    """Inside: returns the error of a second reader of the group, and whether one can read once the first is gone."""
    first = PacketLog(LOG_GROUP)
    try:
        PacketLog(LOG_GROUP).close()
    except NetlinkError as error:
        number = error.errno
    else:
        number = 0
    first.close()
    PacketLog(LOG_GROUP).close()
    return number, True


def test_a_group_has_one_reader_at_a_time(machine: Machine) -> None:
    assert machine.call(read_twice) == (EPERM, True)


def wait_for_the_group() -> list[str]:
    """Inside: starts to read while another reads; returns the chains of packets that are read when it has ended."""
    packetlog.RETRY_SECONDS = 0.1
    queue: SimpleQueue[PacketDenied] = SimpleQueue()
    first, source = PacketLog(LOG_GROUP), DeniedPackets()
    source.start(queue.put)
    try:
        while not source._reported:
            os.sched_yield()
        assert source._reported == packetlog.TAKEN
        first.close()
        return [_await(queue, "127.0.0.2").chain]
    finally:
        source.close()


def test_a_reader_that_comes_second_waits_for_the_first_to_end(machine: Machine) -> None:
    assert machine.call(wait_for_the_group) == ["denied-in"]


def flooded() -> tuple[int, int]:
    """Inside: sends many datagrams at once; returns how many of them were counted, and how many logged."""
    packets = PacketLog(LOG_GROUP)
    before = denied_packets()
    send("127.0.0.2", BURST)
    count = 0
    while batch := packets.read():
        count += len(batch)
    packets.close()
    return denied_packets()["ingress",] - before["ingress",], count


def test_a_flood_is_counted_and_of_it_a_little_logged(machine: Machine) -> None:
    counted, count = machine.call(flooded)
    assert counted == BURST
    assert 0 < count < BURST


def test_without_the_table_nothing_is_counted(machine: Machine) -> None:
    with Machine() as other:
        assert other.call(denied_packets) == {("ingress",): 0, ("egress",): 0}
    assert machine.run("nft", "list", "tables").stdout == f"table inet {TABLE}\n"
