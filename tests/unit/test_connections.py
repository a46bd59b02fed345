"""Messages about connections and their labels, read by pyroute2 as they were meant, and what is read of its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import connections
from cni.kernel.connections import ends_of, parse_connection
from cni.kernel.netlink import NLA_F_NESTED, Malformed, attribute, frame, nest, u8
from cni.kernel.nft import NFGENMSG
from cni.protocol.address import parse_ip
from tests.unit.oracle import WHY, plain

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

oracle: Any = pytest.importorskip("pyroute2.netlink.nfnetlink.nfctsocket", reason=WHY)
CT_NEW, CT_GET, CT_DELETE = 1 << 8, 1 << 8 | 1, 1 << 8 | 2
ACK = 4
LABEL = 77
CLIENT, SERVICE, POD = "10.1.0.3", "10.96.0.1", "10.1.0.2"
CLIENT6, SERVICE6, POD6 = "fd00:1::3", "fd00:96::1", "fd00:1::2"


def read(message: Message) -> tuple[tuple[int, int, int], Any]:
    """Returns the message as pyroute2 reads it: type, flags and family, the attributes."""
    kind, flags, payload = message
    decoded = oracle.nfct_msg(frame(kind, flags, 1, payload))
    decoded.decode()
    head = decoded["header"]["type"], decoded["header"]["flags"], decoded["nfgen_family"]
    return head, plain(decoded.getvalue()["attrs"])


def direction(source: str, destination: str, protocol: int = 6, **ports: int) -> dict[str, Any]:
    family = 10 if ":" in source else 2
    ends = oracle.NFCTAttrTuple(family=family, saddr=source, daddr=destination, proto=protocol, **ports)
    return {"attrs": ends.attrs()}


def answer(source: str, to: str, pod: str, protocol: int = 6, **more: Any) -> bytes:
    """Returns the kernel's answer: a connection to a service's port 80, which leads to a pod's port 8080."""
    message = oracle.nfct_msg()
    message["nfgen_family"] = 10 if ":" in source else 2
    message["attrs"] = [
        ("CTA_TUPLE_ORIG", direction(source, to, protocol, sport=40000, dport=80)),
        ("CTA_TUPLE_REPLY", direction(pod, source, protocol, sport=8080, dport=40000)),
        *more.items(),
    ]
    message.encode()
    return bytes(message.data)[16:]


@pytest.mark.parametrize("protocol", [6, 17, 132])
@pytest.mark.parametrize(("source", "to", "pod"), [(CLIENT, SERVICE, POD), (CLIENT6, SERVICE6, POD6)])
def test_a_connection_is_read_behind_the_translation_of_its_destination(
    source: str, to: str, pod: str, protocol: int
) -> None:
    connection = parse_connection(answer(source, to, pod, protocol))
    assert connection.judged == (parse_ip(source).packed, parse_ip(pod).packed, protocol, 8080)
    assert (connection.labels, connection.master, connection.zone) == (b"", b"", b"")
    assert ends_of(answer(source, to, pod, protocol)) == connection.judged[:2]


def sent(source: str, destination: str, *layer: bytes) -> bytes:
    """Returns a connection that no service leads elsewhere, with flags as the kernel sets them."""
    ends = parse_ip(source).packed, parse_ip(destination).packed
    first = 1 if len(ends[0]) == 4 else 3

    def direction(kind: int, source: bytes, destination: bytes) -> bytes:
        addresses = nest(1, attribute(first, source), attribute(first + 1, destination), flag=NLA_F_NESTED)
        return nest(kind, addresses, nest(2, *layer, flag=NLA_F_NESTED), flag=NLA_F_NESTED)

    return NFGENMSG.pack(2, 0, 0) + direction(1, *ends) + direction(2, *reversed(ends))


TCP = u8(1, 6), attribute(2, b"\0\x50"), attribute(3, b"\0\x50")
ICMP = u8(1, 1), attribute(4, bytes(2)), u8(5, 8), u8(6, 0)


@pytest.mark.parametrize(("source", "to"), [(CLIENT, POD), (CLIENT6, POD6)])
def test_the_ends_of_usual_connections_are_found_by_their_place(
    monkeypatch: pytest.MonkeyPatch, source: str, to: str
) -> None:
    data = sent(source, to, *TCP)
    ends = parse_connection(data).judged[:2]
    monkeypatch.setattr(connections, "attributes", lambda *_: {})
    assert ends_of(data) == ends
    with pytest.raises(Malformed):
        ends_of(sent(source, to, *ICMP))


def test_a_connection_without_ports_has_port_0() -> None:
    ends = parse_ip(CLIENT).packed, parse_ip(POD).packed
    assert parse_connection(sent(CLIENT, POD, *ICMP)).judged == (*ends, 1, 0)
    assert ends_of(sent(CLIENT, POD, *ICMP)) == ends


def test_labels_zone_and_master_are_read() -> None:
    whole = answer(CLIENT, SERVICE, POD, CTA_ZONE=7)
    label = connections.label_bytes(LABEL)
    connection = parse_connection(whole + attribute(22, label) + attribute(14, b"m" * 8))
    assert connection.has_label(LABEL)
    assert not connection.has_label(LABEL + 1)
    assert connection.master == b"m" * 8
    assert read((CT_GET, 0, whole))[1][-1] == ("CTA_ZONE", 7)
    assert connection.zone == attribute(18, b"\0\7")
    assert not parse_connection(whole).has_label(LABEL)


@pytest.mark.parametrize(
    "data",
    [
        bytes(4),
        NFGENMSG.pack(2, 0, 0) + nest(1, nest(1, attribute(1, bytes(5)))),
        NFGENMSG.pack(2, 0, 0) + nest(1, nest(1, attribute(1, bytes(16)))),
        NFGENMSG.pack(2, 0, 0) + nest(1, nest(1, attribute(1, bytes(4)))) + nest(2, nest(1, attribute(3, bytes(16)))),
        NFGENMSG.pack(2, 0, 0) + nest(1, nest(1, attribute(1, bytes(4)))) + nest(2, nest(1, attribute(1, bytes(4)))),
        NFGENMSG.pack(2, 0, 0)
        + nest(1, nest(1, attribute(1, bytes(4))))
        + nest(2, nest(1, attribute(1, bytes(4))), nest(2, u8(1, 6), attribute(2, bytes(3)))),
    ],
)
def test_answers_of_other_lengths_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_connection(data)


@pytest.mark.parametrize(("address", "family", "name"), [(POD, 2, "CTA_IP_V4_SRC"), (POD6, 10, "CTA_IP_V6_SRC")])
def test_the_connections_from_an_address_and_to_it_are_asked_for(address: str, family: int, name: str) -> None:
    asked = [read((kind, 0, payload)) for kind, payload in connections.connections_of(parse_ip(address).packed)]
    ends = {"attrs": [("CTA_TUPLE_IP", {"attrs": [(name, address)]})]}
    flag = oracle.FILTER_FLAG_CTA_IP_SRC
    for (head, attrs), side, flags in zip(
        asked, ("CTA_TUPLE_ORIG", "CTA_TUPLE_REPLY"), ((flag, 0), (0, flag)), strict=True
    ):
        assert head == (CT_GET, 0, family)
        filtered = [("CTA_FILTER_ORIG_FLAGS", flags[0]), ("CTA_FILTER_REPLY_FLAGS", flags[1])]
        assert attrs == [(side, ends), ("CTA_FILTER", {"attrs": filtered})]
    kind, payload = connections.all_connections()
    assert read((kind, 0, payload)) == ((CT_GET, 0, 0), [])


def test_a_connection_is_named_by_its_first_packet_and_zone() -> None:
    whole = answer(CLIENT, SERVICE, POD, CTA_ZONE=7)
    connection = parse_connection(whole)
    original = read((CT_GET, 0, whole))[1][0]
    head, attrs = read(connections.delete_connection(connection))
    assert head == (CT_DELETE, ACK, 2)
    assert attrs == [original, ("CTA_ZONE", 7)]
    head, attrs = read(connections.get_master(connection._replace(master=connection.original)))
    assert head == (CT_GET, 0, 2)
    assert attrs == [original, ("CTA_ZONE", 7)]


@pytest.mark.parametrize("on", [True, False])
def test_a_label_is_set_and_cleared_beside_those_of_others(on: bool) -> None:
    connection = parse_connection(answer(CLIENT6, SERVICE6, POD6))
    kind, flags, payload = connections.set_label(connection, LABEL, on=on)
    assert (kind, flags, payload[0]) == (CT_NEW, ACK, 10)
    label = connections.label_bytes(LABEL)
    assert payload.endswith(attribute(22, label if on else bytes(16)) + attribute(23, label))
    assert int.from_bytes(label[8:], "little") == 1 << LABEL - 64
    assert label[:8] == bytes(8)
