"""Tests parts of `podwire trace` that need no kernel: what people type, messages of firewalls, events, checksums."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("click", reason="the command line is made with it (pip install click)")

import click

from cni.diag.node.attachments import GONE, OWN, PRESENT, Attached
from cni.diag.node.barriers import Barrier, parse_barrier
from cni.diag.node.checksum import checksum
from cni.diag.path.ends import connection
from cni.diag.path.sockets import _address
from cni.effects.iptables_legacy import CHAIN
from cni.kernel import nft_trace
from cni.kernel.netlink import text
from cni.kernel.nft import NFGENMSG, NFPROTO_BRIDGE, VERDICT
from cni.kernel.nft_rules import be32
from cni.plan.forward_accept import dropped, rejected
from cni.protocol.address import parse_ip
from cni.protocol.owner import Owner


def attached(pod: str, *addresses: str, interface: str = PRESENT) -> Attached:
    owner = Owner("net", f"{pod.partition('/')[2]}0123456789", "eth0")
    name = f"veth{pod.partition('/')[2]}"
    return Attached(owner, pod, "podwire", OWN, addresses, name, interface, (), (), f"/run/netns/{pod}", 0.0, None)


SEEN = [
    attached("shop/web", "10.1.2.2/29", "fd00::2/64"),
    attached("shop/db", "fd00::3/64", "10.1.2.3/29"),
    attached("lab/udp", "10.1.2.4/29"),
    attached("old/db2", "10.1.2.3/29", interface=GONE),
]


@pytest.mark.parametrize(
    ("typed", "end"),
    [
        ("shop/db", ("shop/db", "10.1.2.3", "icmp", 0)),
        ("db:5432", ("shop/db", "10.1.2.3", "tcp", 5432)),
        ("shop/db:53/UDP", ("shop/db", "10.1.2.3", "udp", 53)),
        ("lab/udp", ("lab/udp", "10.1.2.4", "icmp", 0)),
        ("lab/udp:7/sctp", ("lab/udp", "10.1.2.4", "sctp", 7)),
        ("/run/netns/shop/db:7", ("shop/db", "10.1.2.3", "tcp", 7)),
        ("10.1.2.3", ("shop/db", "10.1.2.3", "icmp", 0)),
        ("192.0.2.1/icmp", ("", "192.0.2.1", "icmp", 0)),
        ("fd00::3", ("shop/db", "fd00::3", "icmp", 0)),
        ("[fd00::9]:53/udp", ("", "fd00::9", "udp", 53)),
        ("[fd00::9]", ("", "fd00::9", "icmp", 0)),
    ],
)
def test_a_destination_is_a_name_or_an_address_perhaps_with_port_and_protocol(
    typed: str, end: tuple[str, str, str, int]
) -> None:
    path = connection(SEEN, "web", typed)
    name = path.target.name if path.target is not None else ""
    assert (name, path.target_ip.text, path.protocol, path.port) == end
    assert path.source_ip.family == path.target_ip.family


@pytest.mark.parametrize(
    "typed", ["", ":", "db:", "db:x", "db:65536", "db:0/tcp", "db:²", "nobody:7", "db/tcp", "db:7/icmp", "a/b/c"]
)
def test_a_destination_that_is_none_is_a_usage_error(typed: str) -> None:
    with pytest.raises(click.UsageError):
        connection(SEEN, "web", typed)


def test_a_name_of_several_attachments_has_to_be_told_apart() -> None:
    second = attached("shop/web", "10.9.9.9/29")._replace(host_interface="veth2")
    with pytest.raises(click.UsageError, match="give the host interface of one of vethweb"):
        connection([*SEEN, second], "web", "db")
    assert connection([*SEEN, second], "veth2", "db").source_ip.text == "10.9.9.9"


def test_a_pods_name_means_its_own_network() -> None:
    web = SEEN[0]
    further = web._replace(owner=web.owner._replace(ifname="net1"), addresses=("10.9.9.9/29",), host_interface="veth2")
    assert connection([further, *SEEN], "web", "db").source_ip.text == "10.1.2.2"
    assert connection([further, *SEEN[1:]], "web", "db").source_ip.text == "10.9.9.9"


def test_cause_and_remedy_are_told_apart_in_messages_about_firewalls() -> None:
    assert parse_barrier(dropped("forward", "inet admin")) == Barrier(
        "chain forward of table inet admin drops what is forwarded (policy drop)",
        "accept traffic of the containers there, or set its policy to accept",
    )
    assert parse_barrier(rejected("x", "inet y", "x")).remedy == "accept traffic of the containers before it"
    message = f"chain ADMIN of table filter has no effect: it is elsewhere (iptables -I {CHAIN} -j ADMIN)"
    assert parse_barrier(message).remedy == f"iptables -I {CHAIN} -j ADMIN"


def test_an_event_has_the_verdict_of_a_rule_or_of_a_policy() -> None:
    head = NFGENMSG.pack(NFPROTO_BRIDGE, 0, 0) + text(nft_trace.NFTA_TRACE_CHAIN, "forward")
    policy = be32(nft_trace.NFTA_TRACE_TYPE, nft_trace.NFT_TRACETYPE_POLICY) + be32(nft_trace.NFTA_TRACE_POLICY, 0)
    event = nft_trace.parse_trace(head + policy)
    assert (event.family, event.chain, event.kind, event.verdict) == (NFPROTO_BRIDGE, "forward", "policy", "drop")
    for code, verdict in ((1, "accept"), (-3, "jump"), (3 | 7 << 16, "queue"), (99, "99")):
        assert nft_trace._verdict(VERDICT.pack(code)) == verdict


@pytest.mark.parametrize(
    ("network", "transport", "ends"),
    [
        ("450000280000000040060000 0a010202 c0000202", "9c400050", (("0a010202", "c0000202"), (40000, 80))),
        ("450000280000000040010000 0a010202 c0000202", "0800ffff0007", (("0a010202", "c0000202"), (7,))),
        (f"60000000000006ff {'20' * 16} {'fd' * 16}", "0035", (("20" * 16, "fd" * 16), (53, 0))),
        ("45000028", "", ((), ())),
        ("", "", ((), ())),
        ("0001080006040001", "", ((), ())),
    ],
)
def test_an_event_has_the_ends_of_its_packet(network: str, transport: str, ends: Any) -> None:
    addresses, numbers = nft_trace._ends(bytes.fromhex(network), bytes.fromhex(transport))
    assert (tuple([address.hex() for address in addresses]), numbers) == ends


def test_the_checksum_of_an_echo_request_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(b"\x01") == 0xFEFF


def test_addresses_of_proc_are_in_words_of_the_hosts_order() -> None:
    assert _address("0302010A") == parse_ip("10.1.2.3")
    assert _address("B80D0120000000000000000003000000") == parse_ip("2001:db8::3")
    assert _address("0000000000000000FFFF00000302010A") == parse_ip("10.1.2.3")
