"""Fields that rules of nftables read, by nft's words, and their types: numbers of the kernel, and of nft.

Sets bear the numbers of their types for nft alone, which lists them by these (include/datatype.h of nftables). As in
cni.kernel.nft, nothing here opens a socket.
"""

from __future__ import annotations

from _struct import Struct

from cni.kernel.nft import NFPROTO_BRIDGE, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6
from cni.protocol.address import Net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.plan.nftrule import Constant

LINK, NETWORK, TRANSPORT = 0, 1, 2  # headers (enum nft_payload_bases)
SYSTEM16, SYSTEM32 = Struct("=H"), Struct("=I")
LABELS = Struct("=QQ")
TYPE_BITS = 6  # of each type's number in that of a concatenation
IFNAMSIZ = 16
NO_SYMBOLS: Mapping[str, int] = {}


class Type(Record):
    """A type: its number for nft, its length in bytes, and its symbols. Numbers are in network byte order unless
    `native`; of `flags` any one may match.
    """

    number: int
    length: int
    symbols: Mapping[str, int] = NO_SYMBOLS
    native: bool = False
    flags: bool = False


class Field(Record):
    """A field, as an expression loads it into a register. `codes` are the attributes after the register; `protocol` is
    what a packet has to be of.
    """

    expression: str
    codes: tuple[int, ...]
    type: str
    protocol: str = ""


L4 = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
ICMPV6 = {
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-report": 131,
    "nd-router-solicit": 133,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "mld2-listener-report": 143,
}
TYPES = {
    "nf_proto": Type(2, 1, {"ipv4": NFPROTO_IPV4, "ipv6": NFPROTO_IPV6}),
    "integer": Type(4, 0),
    "ipv4_addr": Type(7, 4),
    "ipv6_addr": Type(8, 16),
    "ether_addr": Type(9, 6),
    "ether_type": Type(10, 2, {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "8021q": 0x8100, "8021ad": 0x88A8}),
    "arp_op": Type(11, 2, {"request": 1, "reply": 2}),
    "inet_proto": Type(12, 1, L4),
    "inet_service": Type(13, 2),
    "icmp_type": Type(14, 1, {"echo-reply": 0, "destination-unreachable": 3, "redirect": 5, "echo-request": 8}),
    "mark": Type(19, 4, native=True),
    "arphrd": Type(21, 2, {"ether": 1}, native=True),
    "ct_state": Type(26, 4, {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}, True, True),
    "ct_dir": Type(27, 1, {"original": 0, "reply": 1}),
    "ct_status": Type(28, 4, {"seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32}, True, True),
    "icmpv6_type": Type(29, 1, ICMPV6),
    "ct_label": Type(30, 16, flags=True),
    "pkt_type": Type(31, 1, {"host": 0, "broadcast": 1, "multicast": 2, "other": 3}),
    "fib_addrtype": Type(38, 4, {"unicast": 1, "local": 2, "broadcast": 3, "multicast": 5}, native=True),
    "boolean": Type(39, 4, {"missing": 0, "exists": 1}, native=True),
    "ifname": Type(41, IFNAMSIZ),
}
FIELDS = {
    "ether saddr": Field("payload", (LINK, 6, 6), "ether_addr", "ether"),
    "ether daddr": Field("payload", (LINK, 0, 6), "ether_addr", "ether"),
    "ether type": Field("payload", (LINK, 12, 2), "ether_type"),
    "arp operation": Field("payload", (NETWORK, 6, 2), "arp_op", "arp"),
    "arp saddr ether": Field("payload", (NETWORK, 8, 6), "ether_addr", "arp"),
    "arp saddr ip": Field("payload", (NETWORK, 14, 4), "ipv4_addr", "arp"),
    "arp daddr ip": Field("payload", (NETWORK, 24, 4), "ipv4_addr", "arp"),
    "ip saddr": Field("payload", (NETWORK, 12, 4), "ipv4_addr", "ip"),
    "ip daddr": Field("payload", (NETWORK, 16, 4), "ipv4_addr", "ip"),
    "ip6 saddr": Field("payload", (NETWORK, 8, 16), "ipv6_addr", "ip6"),
    "ip6 daddr": Field("payload", (NETWORK, 24, 16), "ipv6_addr", "ip6"),
    "icmp type": Field("payload", (TRANSPORT, 0, 1), "icmp_type", "icmp"),
    "icmpv6 type": Field("payload", (TRANSPORT, 0, 1), "icmpv6_type", "ipv6-icmp"),
    "th sport": Field("payload", (TRANSPORT, 0, 2), "inet_service"),
    "th dport": Field("payload", (TRANSPORT, 2, 2), "inet_service"),
    "meta protocol": Field("meta", (1,), "ether_type"),
    "meta mark": Field("meta", (3,), "mark"),
    "iifname": Field("meta", (6,), "ifname"),
    "oifname": Field("meta", (7,), "ifname"),
    "meta iiftype": Field("meta", (8,), "arphrd"),
    "meta nfproto": Field("meta", (15,), "nf_proto"),
    "meta l4proto": Field("meta", (16,), "inet_proto"),
    "meta pkttype": Field("meta", (19,), "pkt_type"),
    "ct state": Field("ct", (0,), "ct_state"),
    "ct direction": Field("ct", (1,), "ct_dir"),
    "ct status": Field("ct", (2,), "ct_status"),
    "ct mark": Field("ct", (3,), "mark"),
    "ct label": Field("ct", (13,), "ct_label"),
    # The result (1: there is a route, 3: the kind of address) and flags: 1 saddr, 2 daddr, 8 iif, 32 present.
    "fib saddr type": Field("fib", (3, 1), "fib_addrtype"),
    "fib daddr type": Field("fib", (3, 2), "fib_addrtype"),
    "fib saddr . iif oif": Field("fib", (1, 1 | 8 | 32), "boolean"),
}
for _name in ("tcp", "udp", "sctp"):
    FIELDS[f"{_name} sport"] = FIELDS["th sport"]._replace(protocol=_name)
    FIELDS[f"{_name} dport"] = FIELDS["th dport"]._replace(protocol=_name)

# By family and protocol what nft asks first: which field, and which symbol of it.
NFPROTOS = {"ip": "ipv4", "ip6": "ipv6", "icmp": "ipv4", "ipv6-icmp": "ipv6"}
ETHER_TYPES = {"icmp": "ip", "ipv6-icmp": "ip6", "arp": "arp"}


def fields_of(expression: str) -> list[Field]:
    """Returns the fields of a concatenation, or the single one. Raises KeyError for unknown words."""
    if expression in FIELDS:
        return [FIELDS[expression]]
    return [_raw(part) if part.startswith("@") else FIELDS[part] for part in expression.split(" . ")]


def _raw(expression: str) -> Field:
    """Returns the field of nft's raw payload expression `@HEADER,OFFSET,LENGTH`, in bits."""
    header, offset, length = expression[1:].split(",")
    base = {"ll": LINK, "nh": NETWORK, "th": TRANSPORT}[header]
    return Field("payload", (base, int(offset) // 8, int(length) // 8), "integer")


def prerequisites(family: int, protocol: str) -> list[tuple[str, str]]:
    """Returns the matches (field, symbol) that let only packets of the protocol pass, in a table of this family."""
    matches = []
    if family == NFPROTO_INET and protocol in NFPROTOS:
        matches.append(("meta nfproto", NFPROTOS[protocol]))
    if family == NFPROTO_BRIDGE and protocol in ("ip", "ip6"):
        matches.append(("meta protocol", protocol))
    if family == NFPROTO_BRIDGE and protocol in ETHER_TYPES:
        matches.append(("ether type", ETHER_TYPES[protocol]))
    if family != NFPROTO_BRIDGE and protocol == "ether":
        matches.append(("meta iiftype", "ether"))
    if protocol in L4:
        matches.append(("meta l4proto", protocol))
    return matches


def length_of(field: Field) -> int:
    return TYPES[field.type].length or field.codes[-1]


def encoded(field: Field, value: Constant) -> bytes:
    """Returns a constant as the kernel compares it. Raises KeyError for an unknown symbol."""
    kind = TYPES[field.type]
    if field.type == "ifname":
        return str(value).encode("utf-8", "surrogateescape").ljust(IFNAMSIZ, b"\0")
    if isinstance(value, bytes):
        return value
    if isinstance(value, (str, int)):
        return _number(field, kind, value)
    return (value.ip if isinstance(value, Net) else value).packed


def _number(field: Field, kind: Type, value: str | int) -> bytes:
    if field.type == "ct_label":
        return LABELS.pack(*[(1 << int(value)) >> shift & (1 << 64) - 1 for shift in (0, 64)])
    if isinstance(value, str):
        value = sum([kind.symbols[symbol] for symbol in value.split(",")])
    if kind.native:
        return (SYSTEM16 if kind.length == SYSTEM16.size else SYSTEM32).pack(value)
    return value.to_bytes(length_of(field), "big")


def types_of(concatenation: str) -> list[Type]:
    """Returns the types that are joined by ` . `, as in the declaration of a set."""
    return [TYPES[part] for part in concatenation.split(" . ")]


def types_read(fields: list[Field]) -> list[Type]:
    """Returns the types of fields; that of a raw payload expression has the expression's length."""
    return [TYPES[field.type]._replace(length=length_of(field)) for field in fields]


def number_of(types: list[Type]) -> int:
    """Returns nft's number of a type, or of a concatenation."""
    number = 0
    for kind in types:
        number = number << TYPE_BITS | kind.number
    return number


def padded(data: bytes) -> bytes:
    """Returns a part of a concatenation, whose parts fill whole registers of four bytes."""
    return data + b"\0" * (-len(data) & 3)


# Kinds of expressions as nft numbers them in what it remembers of a set (include/expression.h of nftables), and how it
# counts headers there.
REMEMBERED_PAYLOAD, REMEMBERED_META, REMEMBERED_CONCATENATION = 7, 9, 13
REMEMBERED_HEADERS = {LINK: 1, NETWORK: 2, TRANSPORT: 3}


def remembered(fields: list[Field]) -> bytes:
    """Returns the concatenation as nft remembers it of a set that is declared by `typeof`: of fields of meta and raw
    payload expressions.
    """
    parts = [_tlv(number, _remembered(field)) for number, field in enumerate(fields)]
    return _tlv(0, SYSTEM32.pack(REMEMBERED_CONCATENATION)) + _tlv(1, b"".join(parts))


def _remembered(field: Field) -> bytes:
    if field.expression == "meta":
        kind, numbers = REMEMBERED_META, field.codes
    else:
        base, offset, length = field.codes
        kind, numbers = REMEMBERED_PAYLOAD, (0, 0, REMEMBERED_HEADERS[base], offset * 8, length * 8)
    described = [_tlv(number, SYSTEM32.pack(code)) for number, code in enumerate(numbers)]
    return _tlv(0, SYSTEM32.pack(kind)) + _tlv(1, b"".join(described))


def _tlv(kind: int, data: bytes) -> bytes:
    return bytes([kind, len(data)]) + data
