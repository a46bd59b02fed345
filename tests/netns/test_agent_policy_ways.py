"""Packets that are not forwarded: to the node itself, and those that IPVS sends on by the hook output."""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from cni.agent.policy.basetable import IPVS_LINK, TableOptions
from tests.machine import Machine
from tests.netns.test_agent_revocation import (
    ADDRESSES,
    CLOSED,
    FROM_WEB,
    GATEWAY,
    NO_WAY_OUT,
    PATIENT,
    SILENT,
    attach,
    changed,
    run_agent,
    run_agent_with,
)
from tests.traffic import NOBODY, PROTOCOLS, Target, ask_each, listen

if TYPE_CHECKING:
    from collections.abc import Iterator

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75  # include/uapi/linux/in.h, in6.h


@pytest.fixture
def net() -> Iterator[Machine]:
    """Gives a node with three routed pods."""
    with Machine() as machine:
        machine.run("sh", "-ec", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        for number, (name, addresses) in enumerate(ADDRESSES.items()):
            attach(machine, name, f"veth{number}", addresses)
        yield machine


def test_egress_to_the_own_node_is_judged_unless_the_node_is_open(net: Machine) -> None:
    listen(net, "node", 8000)
    node = [Target(protocol, address, 8000) for protocol in PROTOCOLS for address in GATEWAY.values()]
    others = [Target("tcp", ADDRESSES["db"][0], 80)]

    def reached(targets: list[Target], seconds: float) -> set[bool]:
        return {answer.name != NOBODY for answer in ask_each(net.pods["web"], targets, seconds)}

    net.call(run_agent, changed(NO_WAY_OUT))
    assert reached(node, SILENT) == {False}
    net.call(run_agent_with, TableOptions(log=False, opens_node=True), changed(NO_WAY_OUT))
    assert reached(node, PATIENT) == {True}
    assert reached(others, SILENT) == {False}
    net.call(run_agent, changed(NO_WAY_OUT))
    assert reached(node, SILENT) == {False}


def test_what_the_node_sends_for_pods_is_judged_where_there_is_ipvs(net: Machine) -> None:
    """Another interface of the name stands for that of IPVS, and packets with pods' sources for those that it sends."""
    db = net.pods["db"]
    db.run("nft", "add table inet t; add chain inet t i { type filter hook input priority 0; udp dport 80 counter; }")
    net.call(run_agent, changed(FROM_WEB))
    assert arrives(net, "other")
    net.run("ip", "link", "add", IPVS_LINK, "type", "bridge")
    net.call(run_agent, changed(FROM_WEB))
    assert [arrives(net, "other", SILENT), arrives(net, "web"), arrives(net, "")] == [False, True, True]
    net.call(run_agent, changed(CLOSED))
    assert [arrives(net, "web", SILENT), arrives(net, "")] == [False, True]
    net.call(run_agent, changed(FROM_WEB, NO_WAY_OUT))
    assert [arrives(net, "web", SILENT), arrives(net, "")] == [False, True]


def arrives(net: Machine, source: str, seconds: float = PATIENT) -> bool:
    """Sends db a datagram of each family, from a pod or the node itself; returns True if both arrive, False if none."""
    before, end = _counted(net), time.monotonic() + seconds
    net.call(_send, ADDRESSES.get(source, (GATEWAY[4], GATEWAY[6])))
    while (count := _counted(net) - before) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert count in (0, 2)
    return count == 2


def _counted(net: Machine) -> int:
    listed = net.pods["db"].run("nft", "list", "chain", "inet", "t", "i").stdout
    match = re.search(r"packets (\d+)", listed)
    assert match, listed
    return int(match[1])


def _send(sources: tuple[str, str]) -> None:
    """Inside: sends from addresses that need not be the node's own."""
    kinds = [(socket.AF_INET, socket.IPPROTO_IP, IP_TRANSPARENT)]
    kinds.append((socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_TRANSPARENT))
    for (family, level, option), source, destination in zip(kinds, sources, ADDRESSES["db"], strict=True):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(level, option, 1)
            sender.bind((source, 0))
            with suppress(PermissionError):  # it was dropped
                sender.sendto(b"?", (destination, 80))
