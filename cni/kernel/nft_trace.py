"""nfnetlink messages of nftables' packet traces (`meta nftrace`): a table that marks packets, and the kernel's events.

The table belongs to the socket that creates it, so the kernel removes it with the process (NFT_TABLE_F_OWNER, Linux
5.12). As in cni.kernel.nft, nothing here opens a socket (kernel include/uapi/linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

from cni.kernel.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    U32,
    attributes,
    text,
    u8,
    unpacked,
)
from cni.kernel.nft import (
    NFGENMSG,
    NFNL_SUBSYS_NFTABLES,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
    VERDICT,
    message,
    name_of,
)
from cni.kernel.nft_rules import NFT_REG_1, NFTA_TABLE_NAME, be32, expression, value
from cni.kernel.nft_ruleset import NFT_MSG_NEWTABLE, NFTA_TABLE_FLAGS
from cni.kernel.nft_statements import RuleEncoder
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.nft_fields import Field
    from cni.kernel.rtnl import Message
    from cni.plan.nftrule import AnonymousSet, Statement
    from cni.protocol.address import IP

NFNLGRP_NFTRACE, NFT_MSG_TRACE = 9, 17
TRACE = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_TRACE
NFT_TABLE_F_OWNER = 2
NFT_META_NFTRACE, NFTA_META_KEY, NFTA_META_SREG = 12, 2, 3
NFTA_TRACE_TABLE, NFTA_TRACE_CHAIN, NFTA_TRACE_RULE_HANDLE, NFTA_TRACE_TYPE, NFTA_TRACE_VERDICT = 1, 2, 3, 4, 5
NFTA_TRACE_ID, NFTA_TRACE_NETWORK_HEADER, NFTA_TRACE_TRANSPORT_HEADER = 6, 8, 9
NFTA_TRACE_IIF, NFTA_TRACE_OIF, NFTA_TRACE_POLICY = 10, 12, 16
NFT_TRACETYPE_POLICY, NFT_TRACETYPE_RETURN, NFT_TRACETYPE_RULE = 1, 2, 3
TYPES = {NFT_TRACETYPE_POLICY: "policy", NFT_TRACETYPE_RETURN: "return", NFT_TRACETYPE_RULE: "rule"}
VERDICTS = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
HEADERS = {4: (9, 12, 4), 6: (6, 8, 16)}  # by version: where protocol and source are, and the length of an address
ICMP, ICMPV6 = 1, 58
NF_VERDICT_MASK = 0xFF  # above it are a queue's number, or the errno of a drop
NFT_CT_DIRECTION, NFT_CT_PROTOCOL, NFT_CT_PROTO_SRC, NFT_CT_SRC_IP, NFT_CT_SRC_IP6 = 1, 10, 11, 19, 21
NFTA_CT_DREG, NFTA_CT_KEY, NFTA_CT_DIRECTION = 1, 2, 3
ORIGINAL, REPLY = 0, 1  # enum ip_conntrack_dir


class TraceEvent(Record):
    """A step of a marked packet. `kind`: `rule` (that matched), `policy` or `return` (the end of a chain). `verdict` is
    nft's word, `target` the chain of a jump; `handle` a rule's number, else 0; interfaces are indexes, 0 if unknown.

    `run` is one number for all events of a packet in a base chain and the chains that it jumps to. The first of these
    alone has the packet's `addresses` and `numbers`: ports, or the identifier of an ICMP echo.
    """

    family: int
    table: str
    chain: str
    kind: str
    verdict: str
    target: str
    handle: int
    iif: int
    oif: int
    run: int
    addresses: tuple[bytes, ...] = ()
    numbers: tuple[int, ...] = ()


def add_owned_table(family: int, name: str) -> Message:
    """Adds a table that ends with the socket. Without ownership the kernel answers EOPNOTSUPP or EINVAL."""
    payload = text(NFTA_TABLE_NAME, name) + be32(NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER)
    return message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, family, payload)


def marking(family: int, statements: Iterable[Statement], further: bytes = b"") -> bytes:
    """Returns the expressions of `STATEMENTS meta nftrace set 1`; `further` are expressions after the statements."""
    encoder = RuleEncoder(family, _no_set)
    for statement in statements:
        encoder.add(statement)
    on = expression("immediate", be32(1, NFT_REG_1), value(2, U32.pack(1)))
    marked = expression("meta", be32(NFTA_META_KEY, NFT_META_NFTRACE), be32(NFTA_META_SREG, NFT_REG_1))
    return b"".join(encoder.parts) + further + on + marked


def replies_to(source: IP, protocol: int, port: int) -> bytes:
    """Returns expressions that match what comes back to a connection, translated or not: `ct direction reply`, and its
    original source, protocol and port, for ICMP the identifier.
    """
    source_key = NFT_CT_SRC_IP if source.family == 4 else NFT_CT_SRC_IP6
    return (
        _compared(NFT_CT_DIRECTION, bytes([REPLY]))
        + _compared(source_key, source.packed, original=True)
        + _compared(NFT_CT_PROTOCOL, bytes([protocol]), original=True)
        + _compared(NFT_CT_PROTO_SRC, port.to_bytes(2, "big"), original=True)
    )


def _compared(key: int, data: bytes, *, original: bool = False) -> bytes:
    direction = u8(NFTA_CT_DIRECTION, ORIGINAL) if original else b""
    loaded = expression("ct", be32(NFTA_CT_DREG, NFT_REG_1), be32(NFTA_CT_KEY, key), direction)
    return loaded + expression("cmp", be32(1, NFT_REG_1), be32(2, 0), value(3, data))


def _no_set(_fields: list[Field], _elements: AnonymousSet) -> bytes:
    raise ValueError("a rule that marks a probe compares with values, not with sets")


def parse_trace(data: bytes) -> TraceEvent:
    """Reads the payload of a TRACE message. Raises Malformed."""
    family, _, _ = unpacked(NFGENMSG, data)
    attrs = attributes(data, NFGENMSG.size)
    kind = TYPES.get(_number(attrs.get(NFTA_TRACE_TYPE)), "")
    verdict = attributes(attrs.get(NFTA_TRACE_VERDICT, b""))
    code = verdict.get(NFTA_VERDICT_CODE) or attrs.get(NFTA_TRACE_POLICY, b"")
    return TraceEvent(
        family,
        name_of(attrs.get(NFTA_TRACE_TABLE)),
        name_of(attrs.get(NFTA_TRACE_CHAIN)),
        kind,
        _verdict(code),
        name_of(verdict.get(NFTA_VERDICT_CHAIN)),
        _number(attrs.get(NFTA_TRACE_RULE_HANDLE)),
        _number(attrs.get(NFTA_TRACE_IIF)),
        _number(attrs.get(NFTA_TRACE_OIF)),
        _number(attrs.get(NFTA_TRACE_ID)),
        *_ends(attrs.get(NFTA_TRACE_NETWORK_HEADER, b""), attrs.get(NFTA_TRACE_TRANSPORT_HEADER, b"")),
    )


def _ends(network: bytes, transport: bytes) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Returns the addresses of an IP header, and ports or the identifier behind it; nothing of other headers."""
    version = network[0] >> 4 if network else 0
    if version not in HEADERS:
        return (), ()
    protocol_at, source_at, length = HEADERS[version]
    if len(network) < source_at + 2 * length:
        return (), ()
    middle = source_at + length
    addresses = network[source_at:middle], network[middle : middle + length]
    if network[protocol_at] in (ICMP, ICMPV6):
        return addresses, (_number(transport[4:6]),)
    return addresses, (_number(transport[:2]), _number(transport[2:4]))


def _verdict(code: bytes) -> str:
    if len(code) < VERDICT.size:
        return ""
    (number,) = VERDICT.unpack_from(code)
    return VERDICTS.get(number if number < 0 else number & NF_VERDICT_MASK, str(number))


def _number(data: bytes | None) -> int:
    return int.from_bytes(data or b"", "big")
