"""Messages of nftables for rules in foreign tables: adds podwire's, and reads the others.

Rules are built of the expressions that nft and iptables use, since iptables gives up a table in
which it finds others; tests hold them to both (kernel include/uapi/linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

from _struct import Struct

from cni.kernel.netlink import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    U32,
    attribute,
    attributes,
    each_attribute,
    nest,
    text,
    unpacked,
)
from cni.kernel.nft import (
    BE32,
    NF_INET_FORWARD,
    NFGENMSG,
    NFPROTO_INET,
    NFT_MSG_DELTABLE,
    NFTA_CHAIN_HOOK,
    NFTA_CHAIN_POLICY,
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_HOOK_HOOKNUM,
    NFTA_RULE_CHAIN,
    NFTA_RULE_TABLE,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
    PROTOCOLS,
    UDATA_COMMENT,
    VERDICT,
    comment_of,
    message,
    name_of,
)
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.nft import Chain
    from cni.kernel.rtnl import Message
    from cni.protocol.address import Net

NLM_F_APPEND = 0x800
NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN, NFT_MSG_NEWRULE, NFT_MSG_DELRULE = 3, 5, 6, 8
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_TYPE, NFTA_HOOK_PRIORITY = 1, 3, 7, 2
NFTA_TABLE_NAME = 1
NFTA_RULE_HANDLE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_USERDATA = 3, 4, 7
NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 1, 2
# All expressions that read something count their attributes so: the register first, then what is read.
NFTA_CMP_OP, NFTA_CMP_DATA, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_XOR = 2, 3, 3, 4, 5
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFTA_COUNTER_PACKETS = 2
NFTA_MATCH_NAME, NFTA_MATCH_REV, NFTA_MATCH_INFO = 1, 2, 3

NFT_REG_VERDICT, NFT_REG_1 = 0, 1
NFT_CMP_EQ, NFT_CMP_NEQ = 0, 1
NFT_META_NFPROTO, NFT_CT_STATE, NFT_CT_STATUS = 15, 0, 2
NFT_PAYLOAD_NETWORK_HEADER = 1
NF_ACCEPT, NFT_JUMP = 1, -3
ESTABLISHED, RELATED, NEW = 2, 4, 8  # bits of NFT_CT_STATE (net/netfilter/nf_conntrack_common.h)
IPS_DST_NAT = 1 << 5
SOURCE, DESTINATION = {4: 12, 6: 8}, {4: 16, 6: 24}  # bytes into the header of the family

# struct xt_conntrack_mtinfo3 (linux/netfilter/xt_conntrack.h): addresses and ports; match_flags, invert_flags,
# state_mask, status_mask; ports again. The state's bits are shifted by one, after them come those of NAT.
CONNTRACK = Struct("=146xHHHH14x")
CONNTRACK_REVISION = 3
XT_CONNTRACK_STATE, XT_CONNTRACK_STATE_DNAT = 1, 1 << 7


class Rule(Record):
    """An existing rule. Expressions are (name, attributes)."""

    chain: str
    handle: bytes
    comment: str
    expressions: tuple[tuple[str, dict[int, bytes]], ...]

    @property
    def target(self) -> str:
        """The chain that it jumps or goes to; empty if there is none."""
        verdicts = [verdict_of(data) for name, data in self.expressions if name == "immediate"]
        return next((chain for _, chain in verdicts if chain), "")

    @property
    def packets(self) -> int:
        """The number of packets that its counters have counted."""
        counters = [data for name, data in self.expressions if name == "counter"]
        return sum([int.from_bytes(data.get(NFTA_COUNTER_PACKETS, b""), "big") for data in counters])


def add_chain(chain: Chain) -> Message:
    """Adds a chain; an existing one is kept."""
    payload = text(NFTA_CHAIN_TABLE, chain.table) + text(NFTA_CHAIN_NAME, chain.name)
    return message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, chain.family, payload)


def add_forward_chain(chain: Chain) -> Message:
    """Adds a base chain of hook forward with policy accept, as iptables does."""
    kind, flags, payload = add_chain(chain)
    hook = nest(
        NFTA_CHAIN_HOOK, be32(NFTA_HOOK_HOOKNUM, NF_INET_FORWARD), be32(NFTA_HOOK_PRIORITY, 0), flag=NLA_F_NESTED
    )
    return kind, flags, payload + hook + be32(NFTA_CHAIN_POLICY, NF_ACCEPT) + text(NFTA_CHAIN_TYPE, "filter")


def delete_chain(chain: Chain) -> Message:
    payload = text(NFTA_CHAIN_TABLE, chain.table) + text(NFTA_CHAIN_NAME, chain.name)
    return message(NFT_MSG_DELCHAIN, NLM_F_ACK, chain.family, payload)


def delete_table(family: int, name: str) -> Message:
    """Deletes the table with all that is in it."""
    return message(NFT_MSG_DELTABLE, NLM_F_ACK, family, text(NFTA_TABLE_NAME, name))


def append_rule(chain: Chain, expressions: bytes, comment: str) -> Message:
    return _new_rule(chain, expressions, comment, NLM_F_APPEND)


def insert_rule(chain: Chain, expressions: bytes, comment: str) -> Message:
    """Adds a rule before all others of the chain."""
    return _new_rule(chain, expressions, comment, 0)


def _new_rule(chain: Chain, expressions: bytes, comment: str, where: int) -> Message:
    encoded = comment.encode() + b"\0"
    payload = text(NFTA_RULE_TABLE, chain.table) + text(NFTA_RULE_CHAIN, chain.name)
    payload += nest(NFTA_RULE_EXPRESSIONS, expressions, flag=NLA_F_NESTED)
    payload += attribute(NFTA_RULE_USERDATA, bytes([UDATA_COMMENT, len(encoded)]) + encoded)
    return message(NFT_MSG_NEWRULE, NLM_F_CREATE | where | NLM_F_ACK, chain.family, payload)


def delete_rule(chain: Chain, handle: bytes) -> Message:
    payload = text(NFTA_RULE_TABLE, chain.table) + text(NFTA_RULE_CHAIN, chain.name)
    return message(NFT_MSG_DELRULE, NLM_F_ACK, chain.family, payload + attribute(NFTA_RULE_HANDLE, handle))


def from_subnet(chain: Chain, subnet: Net) -> bytes:
    """Returns expressions of a rule in this chain: `ip saddr SUBNET`."""
    return _address(chain, SOURCE[subnet.family], subnet)


def to_subnet(chain: Chain, subnet: Net) -> bytes:
    return _address(chain, DESTINATION[subnet.family], subnet)


def _address(chain: Chain, offset: int, subnet: Net) -> bytes:
    packed, bits = subnet.network.ip.packed, subnet.ip.bits
    family = b""
    if chain.family == NFPROTO_INET:
        family = load("meta", NFT_META_NFPROTO) + compare(NFT_CMP_EQ, bytes([PROTOCOLS[subnet.family]]))
    if subnet.prefix % 8 == 0:
        length = subnet.prefix // 8
        return family + load("payload", NFT_PAYLOAD_NETWORK_HEADER, offset, length) + compare(0, packed[:length])
    netmask = ((1 << bits) - (1 << bits - subnet.prefix)).to_bytes(bits // 8, "big")
    whole = load("payload", NFT_PAYLOAD_NETWORK_HEADER, offset, len(packed))
    return family + whole + masked(netmask) + compare(NFT_CMP_EQ, packed)


def answers(chain: Chain) -> dict[str, bytes]:
    """Returns expressions for packets of a known connection, and for those that came through a host port: one rule for
    each, by a name.
    """
    if chain.family != NFPROTO_INET:
        states = ESTABLISHED | RELATED | XT_CONNTRACK_STATE_DNAT
        info = CONNTRACK.pack(XT_CONNTRACK_STATE, 0, states, 0)
        return {"answers to": _match("conntrack", CONNTRACK_REVISION, info)}
    bits = {"answers to": (NFT_CT_STATE, ESTABLISHED | RELATED), "host ports of": (NFT_CT_STATUS, IPS_DST_NAT)}
    return {
        name: load("ct", key) + masked(U32.pack(mask)) + compare(NFT_CMP_NEQ, U32.pack(0))
        for name, (key, mask) in bits.items()
    }


def accept() -> bytes:
    return counter() + verdict(attribute(NFTA_VERDICT_CODE, VERDICT.pack(NF_ACCEPT)))


def jump(chain: str) -> bytes:
    code = attribute(NFTA_VERDICT_CODE, VERDICT.pack(NFT_JUMP))
    return counter() + verdict(code + text(NFTA_VERDICT_CHAIN, chain))


def expression(name: str, *data: bytes) -> bytes:
    content = nest(NFTA_EXPR_DATA, *data, flag=NLA_F_NESTED)
    return nest(NFTA_LIST_ELEM, text(NFTA_EXPR_NAME, name), content, flag=NLA_F_NESTED)


def be32(kind: int, number: int) -> bytes:
    return attribute(kind, BE32.pack(number))


def value(kind: int, data: bytes) -> bytes:
    return nest(kind, attribute(NFTA_DATA_VALUE, data), flag=NLA_F_NESTED)


def load(name: str, *keys: int) -> bytes:
    return expression(name, *[be32(kind, code) for kind, code in enumerate((NFT_REG_1, *keys), start=1)])


def compare(operator: int, data: bytes) -> bytes:
    return expression("cmp", be32(1, NFT_REG_1), be32(NFTA_CMP_OP, operator), value(NFTA_CMP_DATA, data))


def masked(mask: bytes, flipped: bytes = b"") -> bytes:
    """Returns the expression that keeps these bits of the register, and flips others."""
    length = be32(NFTA_BITWISE_LEN, len(mask))
    and_mask, xor = value(NFTA_BITWISE_MASK, mask), value(NFTA_BITWISE_XOR, flipped or bytes(len(mask)))
    return expression("bitwise", be32(1, NFT_REG_1), be32(2, NFT_REG_1), length, and_mask, xor)


def _match(name: str, revision: int, info: bytes) -> bytes:
    identity = text(NFTA_MATCH_NAME, name) + be32(NFTA_MATCH_REV, revision)
    return expression("match", identity, attribute(NFTA_MATCH_INFO, info))


def counter() -> bytes:
    return expression("counter")


def verdict(target: bytes) -> bytes:
    data = nest(NFTA_IMMEDIATE_DATA, nest(NFTA_DATA_VERDICT, target, flag=NLA_F_NESTED), flag=NLA_F_NESTED)
    return expression("immediate", be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT), data)


def parse_rule(data: bytes) -> Rule:
    attrs = attributes(data, NFGENMSG.size)
    expressions = []
    for _, listed in each_attribute(attrs.get(NFTA_RULE_EXPRESSIONS, b"")):
        content = attributes(listed)
        expressions.append((name_of(content.get(NFTA_EXPR_NAME)), attributes(content.get(NFTA_EXPR_DATA, b""))))
    comment = comment_of(attrs.get(NFTA_RULE_USERDATA, b"")) or _iptables_comment(expressions)
    return Rule(name_of(attrs.get(NFTA_RULE_CHAIN)), attrs.get(NFTA_RULE_HANDLE, b""), comment, tuple(expressions))


def _iptables_comment(expressions: list[tuple[str, dict[int, bytes]]]) -> str:
    """Returns the comment of a rule of iptables-restore, which is an expression."""
    for name, data in expressions:
        if name == "match" and name_of(data.get(NFTA_MATCH_NAME)) == "comment":
            return name_of(data.get(NFTA_MATCH_INFO))
    return ""


def verdict_of(data: dict[int, bytes]) -> tuple[int, str]:
    """Returns (code, chain) of an immediate's data; NF_DROP if it holds no verdict."""
    target = attributes(attributes(data.get(NFTA_IMMEDIATE_DATA, b"")).get(NFTA_DATA_VERDICT, b""))
    (code,) = unpacked(VERDICT, target.get(NFTA_VERDICT_CODE, bytes(VERDICT.size)))
    return code, name_of(target.get(NFTA_VERDICT_CHAIN))


def value_of(data: dict[int, bytes], kind: int) -> bytes:
    """Returns the value that an expression compares with, or its mask."""
    return attributes(data.get(kind, b"")).get(NFTA_DATA_VALUE, b"")
