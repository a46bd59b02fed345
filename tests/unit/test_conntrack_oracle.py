"""Messages about connections, read by pyroute2 as they were meant; and which connections are forgotten."""

from __future__ import annotations

import struct
from errno import EINVAL, ENOENT, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.config.portmap import PortMapping
from cni.effects import conntrack
from cni.kernel import rtnl_parse
from cni.kernel.netlink import NetlinkError, frame
from cni.plan.portmap import FlowsBeforeMapping, FlowsThroughMapping
from cni.protocol.address import parse_ip
from tests.unit.oracle import WHY, plain

if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.rtnl import Message

oracle: Any = pytest.importorskip("pyroute2.netlink.nfnetlink.nfctsocket", reason=WHY)
addresses: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifaddrmsg", reason=WHY)
CT_GET, CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
ACK, NESTED = 4, 0x8000
HOST, HOST6 = "192.0.2.1", "2001:db8:2::1"
POD, POD6 = "10.1.2.3", "2001:db8::3"


def read(message: Message) -> tuple[tuple[int, int, int], Any]:
    """Returns the message as pyroute2 reads it: type, flags and family, the attributes."""
    kind, flags, payload = message
    decoded = oracle.nfct_msg(frame(kind, flags, 1, payload))
    decoded.decode()
    assert (decoded["version"], decoded["res_id"]) == (0, 0)
    return (decoded["header"]["type"], decoded["header"]["flags"], decoded["nfgen_family"]), plain(
        decoded.getvalue()["attrs"]
    )


def direction(src: str, dst: str, sport: int, dport: int, proto: int) -> dict[str, Any]:
    family = 10 if ":" in src else 2
    attributes = oracle.NFCTAttrTuple(family=family, saddr=src, daddr=dst, proto=proto, sport=sport, dport=dport)
    return {"attrs": attributes.attrs()}


def flow(
    to: str, answers_from: str, port: int = 53, proto: int = 17, number: int = 1, zone: int | None = None
) -> bytes:
    """One that a caller sent to the address and port of the host; the content of the kernel's answer."""
    caller = "2001:db8:2::2" if ":" in to else "192.0.2.2"
    message = oracle.nfct_msg()
    message["nfgen_family"] = 10 if ":" in to else 2
    message["attrs"] = [
        ("CTA_TUPLE_ORIG", direction(caller, to, 40000, port, proto)),
        ("CTA_TUPLE_REPLY", direction(answers_from, caller, 5353, 40000, proto)),
        ("CTA_ID", number),
        *([("CTA_ZONE", zone)] if zone is not None else []),
    ]
    message.encode()
    return bytes(message.data)[16:]


def address(text: str) -> bytes:
    message = addresses.ifaddrmsg()
    message["family"], message["prefixlen"] = (10, 64) if ":" in text else (2, 24)
    message["attrs"] = [("IFA_LOCAL", text)]
    message.encode()
    return bytes(message.data)[16:]


class Sockets:
    """A machine whose kernel remembers these flows; it keeps what it is asked, and refuses as it is told to."""

    def __init__(self, *flows: bytes, dumping: int = 0, deleting: int = 0) -> None:
        self.rtnl = self.nft = self
        self.flows = flows
        self.dumping = dumping
        self.deleting = deleting
        self.dumps: list[tuple[int, bytes]] = []
        self.requests: list[Message] = []

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        if kind != CT_GET:
            raise AssertionError("nothing but flows is asked for")
        self.dumps.append((kind, payload))
        if self.dumping:
            raise NetlinkError(self.dumping, "")
        return list(self.flows)

    def all_addresses(self) -> list[rtnl_parse.AddressInfo]:
        return [rtnl_parse.parse_address(address(text)) for text in ("127.0.0.1", HOST, "::1", HOST6)]

    def request(self, *message: Any) -> None:
        self.requests.append(message)
        if self.deleting:
            raise NetlinkError(self.deleting, "")

    @property
    def forgotten(self) -> list[int]:
        return [dict(read(request)[1])["CTA_ID"] for request in self.requests]


def unmapped(sockets: Sockets, family: int = 4, host_ip: str = "") -> None:
    mapping = PortMapping("udp", parse_ip(host_ip) if host_ip else None, family, 53, 5353)
    op = FlowsBeforeMapping((mapping,), parse_ip(POD if family == 4 else POD6))
    conntrack.apply_unmapped(cast("Host", sockets), op, cast("Journal", None))


def mapped(sockets: Sockets, ip: str = POD) -> None:
    conntrack.delete_mapped(cast("Host", sockets), {(parse_ip(ip).packed, 53)})


@pytest.mark.parametrize(("ip", "family"), [(POD, 2), (POD6, 10)])
def test_flows_to_a_port_are_asked_for_and_no_others(ip: str, family: int) -> None:
    sockets = Sockets()
    mapped(sockets, ip)
    ((kind, payload),) = sockets.dumps
    header, attrs = read((kind, 0, payload))
    assert header == (CT_GET, 0, family)
    protocol = {"attrs": [("CTA_PROTO_NUM", 17), ("CTA_PROTO_DST_PORT", 53)]}
    flags = oracle.FILTER_FLAG_CTA_PROTO_NUM | oracle.FILTER_FLAG_CTA_PROTO_DST_PORT
    assert attrs == [
        ("CTA_TUPLE_ORIG", {"attrs": [("CTA_TUPLE_PROTO", protocol)]}),
        ("CTA_FILTER", {"attrs": [("CTA_FILTER_ORIG_FLAGS", flags), ("CTA_FILTER_REPLY_FLAGS", 0)]}),
    ]
    for nest in (1, 2, 25):
        assert struct.pack("=H", nest | NESTED) in payload


@pytest.mark.parametrize(("to", "pod", "family"), [(HOST, POD, 2), (HOST6, POD6, 10)])
@pytest.mark.parametrize("zone", [None, 7])
def test_a_flow_is_deleted_by_its_own_words(to: str, pod: str, family: int, zone: int | None) -> None:
    """The message has the flow's ID: without it a flow that has taken its place would go."""
    sockets = Sockets(flow(to, pod, number=99, zone=zone))
    mapped(sockets, pod)
    ((kind, flags, payload),) = sockets.requests
    header, attrs = read((kind, flags, payload))
    assert header == (CT_DELETE, ACK, family)
    original = plain(read((CT_GET, 0, sockets.flows[0]))[1])[0]
    assert attrs == [original, ("CTA_ID", 99), *([("CTA_ZONE", zone)] if zone is not None else [])]
    assert payload[4:8] == struct.pack("=HH", len(payload[4:]) - 8 - (8 if zone is not None else 0), 1 | NESTED)


FLOWS = [
    flow(HOST, HOST, number=1),  # to the host, answered by it
    flow(HOST, POD, number=2),  # through the port
    flow(HOST, "10.1.2.4", number=3),  # through the port, to another container
    flow("198.51.100.1", "198.51.100.1", number=4),  # through the host, to somebody else's port
    flow("127.0.0.1", "127.0.0.1", number=5),
    flow(HOST, POD, port=54, number=6),  # what an old kernel does not leave out
    flow(HOST, POD, proto=6, number=7),
]
FLOWS6 = [flow(HOST6, HOST6, number=1), flow(HOST6, POD6, number=2), flow("2001:db8:3::1", "2001:db8:3::1", number=3)]


def test_what_went_through_a_port_to_the_container_is_forgotten() -> None:
    sockets = Sockets(*FLOWS)
    mapped(sockets)
    assert sockets.forgotten == [2]
    sockets = Sockets(*FLOWS6)
    mapped(sockets, POD6)
    assert sockets.forgotten == [2]


def test_what_went_to_a_port_of_the_host_before_it_led_on_is_forgotten() -> None:
    """Also what another container had of it; what the host only forwards is not its affair."""
    sockets = Sockets(*FLOWS)
    unmapped(sockets)
    assert sockets.forgotten == [1, 2, 3, 5]
    sockets = Sockets(*FLOWS6)
    unmapped(sockets, 6)
    assert sockets.forgotten == [1, 2]


def test_a_port_of_one_address_has_the_flows_of_that_address() -> None:
    sockets = Sockets(*FLOWS)
    unmapped(sockets, host_ip="127.0.0.1")
    assert sockets.forgotten == [5]


def test_a_flow_that_has_ended_meanwhile_is_forgotten_and_so_are_those_after_it() -> None:
    sockets = Sockets(*FLOWS, deleting=ENOENT)
    unmapped(sockets)
    assert sockets.forgotten == [1, 2, 3, 5]


@pytest.mark.parametrize("errno", [EINVAL, EOPNOTSUPP])
def test_a_kernel_that_tells_of_no_connections_has_none_to_forget(errno: int) -> None:
    sockets = Sockets(dumping=errno)
    unmapped(sockets)
    assert sockets.requests == []


def test_any_other_refusal_is_a_failure() -> None:
    with pytest.raises(NetlinkError):
        mapped(Sockets(dumping=EPERM))
    with pytest.raises(NetlinkError):
        mapped(Sockets(*FLOWS, deleting=EPERM))


def test_an_answer_without_words_is_passed_over() -> None:
    sockets = Sockets(bytes(4), struct.pack(">BBH", 2, 0, 0))
    mapped(sockets)
    unmapped(sockets)
    assert sockets.requests == []


@pytest.mark.parametrize("number", [2, 300])
def test_many_ports_take_one_pass(number: int) -> None:
    """All UDP flows are asked for once, however many ports there are, and the host's addresses once."""
    mappings = tuple(PortMapping("udp", None, 0, port, port) for port in range(53, 53 + number))
    sockets = Sockets(*FLOWS)
    op = FlowsBeforeMapping(mappings, parse_ip(POD))
    conntrack.apply_unmapped(cast("Host", sockets), op, cast("Journal", None))
    assert sockets.forgotten == [1, 2, 3, 5, 6]
    conntrack.release_mapped(cast("Host", sockets), FlowsThroughMapping(mappings, parse_ip(POD)))
    assert sockets.forgotten[5:] == [2, 6]
    assert len(sockets.dumps) == 2
    _, attrs = read((sockets.dumps[0][0], 0, sockets.dumps[0][1]))
    assert attrs[0] == ("CTA_TUPLE_ORIG", {"attrs": [("CTA_TUPLE_PROTO", {"attrs": [("CTA_PROTO_NUM", 17)]})]})
