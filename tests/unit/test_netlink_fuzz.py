"""Decoders of netlink, fed with what the kernel never sends: an answer, or the one error of ours."""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.agent.controllers.drift import Drift
from cni.effects.forward_audit import understand
from cni.kernel import connections, conntrack, nft, nft_rules, nft_trace, rtnl, rtnl_overlay, rtnl_parse, tc
from cni.kernel.netlink import (
    NLA_F_NESTED,
    Interrupted,
    Malformed,
    NetlinkError,
    address,
    attribute,
    frame,
    messages,
    nest,
    text,
    u8,
    u32,
)
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.errors import OperationFailed
from cni.protocol.result import Route
from tests.unit.strategies import damaged

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.no_cover
EXAMPLES = 50
MAC = bytes(range(6))
IP4, NET4, NET6 = parse_ip("192.0.2.1"), parse_net("192.0.2.0/24"), parse_net("2001:db8::/64")
CHAIN = nft.Chain(nft.NFPROTO_INET, "podwire", "forward")
VXLAN = rtnl_overlay.VxlanInfo(1, 2, IP4, 8472, learning=False, gbp=True)

LINK = (
    rtnl.IFINFO.pack(0, 1, 7, 1, 0)
    + text(rtnl.IFLA_IFNAME, "eth0")
    + attribute(rtnl.IFLA_ADDRESS, MAC)
    + u32(rtnl.IFLA_MTU, 1500)
    + u8(rtnl.IFLA_OPERSTATE, 6)
    + nest(
        rtnl.IFLA_LINKINFO,
        text(rtnl.IFLA_INFO_KIND, "bridge"),
        nest(rtnl.IFLA_INFO_DATA, u8(rtnl.IFLA_BR_VLAN_FILTERING, 1)),
        nest(rtnl.IFLA_INFO_SLAVE_DATA, u8(rtnl.IFLA_BRPORT_MODE, 1)),
    )
)
HOP = rtnl.NEXTHOP.pack(16, 3) + address(rtnl.RTA_GATEWAY, IP4)
HOPS = rtnl.new_route(0, Route(NET4, None))[2] + attribute(rtnl.RTA_MULTIPATH, HOP + HOP)
FLOW = nft.NFGENMSG.pack(2, 0, 0) + nest(
    conntrack.CTA_TUPLE_ORIG,
    nest(conntrack.CTA_TUPLE_IP, address(1, IP4), address(2, IP4), flag=NLA_F_NESTED),
    nest(conntrack.CTA_TUPLE_PROTO, u8(1, 17), attribute(3, b"\0\x35"), flag=NLA_F_NESTED),
    flag=NLA_F_NESTED,
)
CONNECTION = FLOW + FLOW[4:].replace(struct.pack("=H", conntrack.CTA_TUPLE_ORIG | NLA_F_NESTED), b"\2\x80", 1)
RULE = nft_rules.append_rule(CHAIN, nft_rules.from_subnet(CHAIN, NET4), "a comment")[2]
TRACE = (
    nft.NFGENMSG.pack(nft.NFPROTO_INET, 0, 0)
    + text(nft_trace.NFTA_TRACE_TABLE, "admin")
    + text(nft_trace.NFTA_TRACE_CHAIN, "forward")
    + nft_rules.be32(nft_trace.NFTA_TRACE_TYPE, nft_trace.NFT_TRACETYPE_RULE)
    + attribute(nft_trace.NFTA_TRACE_RULE_HANDLE, bytes(7) + b"\2")
    + nest(
        nft_trace.NFTA_TRACE_VERDICT,
        attribute(nft.NFTA_VERDICT_CODE, nft.VERDICT.pack(nft.NFT_JUMP)),
        text(nft.NFTA_VERDICT_CHAIN, "more"),
        flag=NLA_F_NESTED,
    )
    + nft_rules.be32(nft_trace.NFTA_TRACE_IIF, 2)
)
ELEMENT = nft.add_element(
    nft.SetRef(nft.NFPROTO_INET, "podwire", "masquerade4"), nft.Element(IP4.packed, "chain", "podwire a b c")
)[2]


def drift(kind: int) -> Callable[[bytes], object]:
    """Returns the agent's reader of events, which watches every link and table."""

    class All(dict[int, Any]):
        def __missing__(self, index: int) -> Any:
            return None

    watch = Drift("podwired")
    watch.desired = All()
    return lambda data: watch.disturbed(kind, data)


def rule_drift(data: bytes) -> object:
    return Drift("podwired").rules_disturbed(10 << 8 | nft_rules.NFT_MSG_DELRULE, data)


def parse_rule(data: bytes) -> object:
    rule = nft_rules.parse_rule(data)
    return rule.target, understand(rule, {}, lambda _: [])


def printed(parse: Callable[[bytes], Any]) -> Callable[[bytes], object]:
    """Returns a reader whose every decoded value is printed as well: it has to be fit for use."""
    return lambda data: [str(text) for text in _texts(parse(data))]


def _texts(decoded: Any) -> list[str]:
    records = decoded if isinstance(decoded, list) else [decoded]
    every = [member for record in records if record is not None for member in (record, *record)]
    return [member.text for member in every if hasattr(member, "text")]


DECODERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "link": (LINK, rtnl_parse.parse_link),
    "vlans": (
        rtnl.add_vlans(7, 2, 9, native=True)[2],
        rtnl_parse.parse_port_vlans,
    ),
    "address": (rtnl.new_address(7, NET6, 2)[2], printed(rtnl_parse.parse_address)),
    "route": (rtnl.new_route(7, Route(NET4, IP4, mtu=1400), IP4)[2], printed(rtnl_parse.parse_route)),
    "next hops": (HOPS, printed(rtnl_parse.parse_next_hops)),
    "vxlan": (rtnl_overlay.new_vxlan("flannel.1", MAC, 1450, VXLAN)[2], printed(rtnl_overlay.parse_vxlan)),
    "neighbour": (rtnl_overlay.set_neighbour(7, IP4, MAC)[2], printed(rtnl_overlay.parse_neighbour)),
    "made route": (rtnl_overlay.set_route(NET4, IP4, 7, 80, on_link=True)[2], printed(rtnl_overlay.parse_kernel_route)),
    "bucket": (tc.new_token_bucket(7, 1 << 33, 10, 10)[2], lambda data: tc.parse_token_bucket(data, 7)),
    "redirect": (tc.new_redirect(7, 8)[2], tc.redirects_to),
    "chain": (nft_rules.add_chain(CHAIN)[2], nft.parse_chain),
    "chain of a rule": (RULE, nft.parse_rule),
    "rule": (RULE, parse_rule),
    "elements": (ELEMENT, nft.parse_elements),
    "trace": (TRACE, nft_trace.parse_trace),
    "flow": (FLOW, lambda data: conntrack.parse_flow(data, 4)),
    "connection": (CONNECTION, lambda data: connections.parse_connection(data).has_label(77)),
    "ends of a connection": (CONNECTION, connections.ends_of),
    "event of a link": (LINK, drift(rtnl.RTM_NEWLINK)),
    "event of an address": (rtnl.new_address(7, NET6, 2)[2], drift(rtnl.RTM_NEWADDR)),
    "event of a neighbour": (rtnl_overlay.set_neighbour(7, IP4, MAC)[2], drift(rtnl_overlay.RTM_NEWNEIGH)),
    "event of a route": (rtnl_overlay.set_route(NET4, IP4, 7, 80, on_link=True)[2], drift(rtnl.RTM_NEWROUTE)),
    "event of a rule": (RULE, rule_drift),
    "datagram": (frame(16, 2, 1, LINK) + frame(3, 2, 1, bytes(4)), lambda data: list(messages(data))),
}


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_whole_is_decoded(name: str) -> None:
    data, decode = DECODERS[name]
    decode(data)


def outcome(name: str, data: bytes) -> str:
    """Decodes. Raises AssertionError with the payload where the decoder raises anything but Malformed."""
    try:
        DECODERS[name][1](data)
    except Malformed:
        return "malformed"
    except (struct.error, ValueError, LookupError, TypeError, OverflowError) as error:
        raise AssertionError(data.hex()) from error
    return "decoded"


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_cut_is_decoded_or_malformed(name: str) -> None:
    data, _ = DECODERS[name]
    assert "malformed" in {outcome(name, data[:end]) for end in range(len(data))}


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_damaged_is_decoded_or_malformed(name: str) -> None:
    @settings(max_examples=EXAMPLES)
    @given(damaged(DECODERS[name][0]))
    def check(data: bytes) -> None:
        outcome(name, data)

    check()


WHOLE = frame(2, 0, 1, bytes(4)) + frame(3, 2, 1, bytes(4)) + frame(16, 2, 1, LINK)
CALLS: dict[str, Callable[[RtnlSocket], object]] = {
    "request": lambda netlink: netlink.request(16, 0, b""),
    "ask": lambda netlink: netlink.ask(18, 0, b""),
    "ask_each": lambda netlink: netlink.ask_each([(18, 0, b"")] * 3),
    "change_each": lambda netlink: netlink.change_each([(18, 0, b"")] * 3),
    "dump": lambda netlink: netlink.dump(18, b""),
    "parts": lambda netlink: list(netlink.parts(18, b"")),
    "batch": lambda netlink: netlink.batch([(16, 4, b"")] * 2),
}


class Kernel:
    """A socket that gives prepared datagrams, then no more."""

    def __init__(self, datagrams: list[bytes]) -> None:
        self.datagrams = datagrams

    def send(self, data: bytes) -> int:
        return len(data)

    def recvmsg(self, *_: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        if not self.datagrams:
            raise BlockingIOError(11, "no more")
        return self.datagrams.pop(), [], 0, (0, 0)


@pytest.mark.parametrize("verb", CALLS)
def test_every_verb_ends_whatever_is_received(verb: str) -> None:
    @settings(max_examples=EXAMPLES)
    @given(st.lists(damaged(WHOLE), max_size=5))
    def check(datagrams: list[bytes]) -> None:
        netlink = RtnlSocket.__new__(RtnlSocket)
        members: Any = netlink
        members._socket, members._sequence = Kernel(datagrams), 0
        with contextlib.suppress(OperationFailed, NetlinkError, Interrupted):
            CALLS[verb](netlink)

    check()
