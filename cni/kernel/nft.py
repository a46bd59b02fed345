"""nfnetlink messages of nftables: elements of maps and sets, and requests for chains and rules.

Only elements are added and removed with containers. Tables, chains and rules are created when they are missing
(cni.kernel.nft_ruleset); rules for foreign tables are in cni.kernel.nft_rules. Nothing here opens a socket, as in
cni.kernel.rtnl (kernel include/uapi/linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

from _struct import Struct
from errno import EAFNOSUPPORT, EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT

from cni.kernel.netlink import (
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    attributes,
    each_attribute,
    nest,
    text,
    unpacked,
)
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.rtnl import Message

# The kernel's answers where an object does not exist; without nftables none does.
NOT_FOUND = (ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, EAFNOSUPPORT)
# nfnetlink answers EINVAL for a subsystem that the kernel does not have: to a valid request it means the same.
NOT_FOUND_OR_EINVAL = (*NOT_FOUND, EINVAL)

NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE = 2, 4, 7
NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_GETGEN = 12, 13, 14, 16
NFPROTO_INET, NFPROTO_IPV4, NFPROTO_BRIDGE, NFPROTO_IPV6 = 1, 2, 7, 10
FAMILY_NAMES = {NFPROTO_INET: "inet", NFPROTO_IPV4: "ip", NFPROTO_IPV6: "ip6"}
PROTOCOLS = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}
NF_INET_FORWARD = 2
NF_DROP = 0

NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY = 1, 3, 4, 5
NFTA_HOOK_HOOKNUM = 1
NFTA_RULE_TABLE, NFTA_RULE_CHAIN = 1, 2
NFTA_LIST_TABLE, NFTA_LIST_SET, NFTA_LIST_ELEMENTS, NFTA_LIST_ELEM = 1, 2, 3, 1
NFTA_ELEM_KEY, NFTA_ELEM_DATA, NFTA_ELEM_USERDATA = 1, 2, 6
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
NFT_JUMP, NFT_GOTO, NFT_RETURN = -3, -4, -5
UDATA_COMMENT = 0  # libnftnl: NFTNL_UDATA_SET_ELEM_COMMENT

NFGENMSG = Struct(">BBH")  # family, version, resource
VERDICT = Struct(">i")
BE32 = Struct(">I")


class Chain(Record):
    """A chain, by nfproto family, table and name. `drops_forwarded`: hook forward with policy drop."""

    family: int
    table: str
    name: str
    drops_forwarded: bool = False

    @property
    def table_text(self) -> str:
        """The table's family and name, as nft writes them."""
        return f"{FAMILY_NAMES.get(self.family, self.family)} {self.table}"


class SetRef(Record):
    """A map or set: nfproto family, table, name."""

    family: int
    table: str
    name: str


class Element(Record):
    """An element of a set (neither chain nor value), of a verdict map (`chain`, by goto if `leaves`, else by jump), or
    of a map to values. `label` is the comment.
    """

    key: bytes
    chain: str
    label: str
    value: bytes = b""
    leaves: bool = False


def message(kind: int, flags: int, family: int, payload: bytes) -> Message:
    return NFNL_SUBSYS_NFTABLES << 8 | kind, flags, NFGENMSG.pack(family, 0, 0) + payload


def _key(element: Element) -> bytes:
    return nest(NFTA_ELEM_KEY, attribute(NFTA_DATA_VALUE, element.key), flag=NLA_F_NESTED)


def _list(set_ref: SetRef, *elements: bytes) -> bytes:
    payload = text(NFTA_LIST_TABLE, set_ref.table) + text(NFTA_LIST_SET, set_ref.name)
    listed = [nest(NFTA_LIST_ELEM, element, flag=NLA_F_NESTED) for element in elements]
    return payload + (nest(NFTA_LIST_ELEMENTS, *listed, flag=NLA_F_NESTED) if listed else b"")


def add_element(set_ref: SetRef, element: Element) -> Message:
    """Adds an element; the kernel answers EEXIST if the key exists, ENOENT if table, map or chain is missing."""
    parts = _key(element)
    if element.chain:
        code = attribute(NFTA_VERDICT_CODE, VERDICT.pack(NFT_GOTO if element.leaves else NFT_JUMP))
        verdict = nest(NFTA_DATA_VERDICT, code, text(NFTA_VERDICT_CHAIN, element.chain), flag=NLA_F_NESTED)
        parts += nest(NFTA_ELEM_DATA, verdict, flag=NLA_F_NESTED)
    elif element.value:
        parts += nest(NFTA_ELEM_DATA, attribute(NFTA_DATA_VALUE, element.value), flag=NLA_F_NESTED)
    comment = element.label.encode() + b"\0"
    parts += attribute(NFTA_ELEM_USERDATA, bytes([UDATA_COMMENT, len(comment)]) + comment)
    flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
    return message(NFT_MSG_NEWSETELEM, flags, set_ref.family, _list(set_ref, parts))


def delete_element(set_ref: SetRef, element: Element) -> Message:
    return message(NFT_MSG_DELSETELEM, NLM_F_ACK, set_ref.family, _list(set_ref, _key(element)))


def get_element(set_ref: SetRef, element: Element) -> Message:
    """Asks for the element with this key; the kernel answers ENOENT if there is none."""
    return message(NFT_MSG_GETSETELEM, 0, set_ref.family, _list(set_ref, _key(element)))


def all_elements(set_ref: SetRef) -> tuple[int, bytes]:
    kind, _, payload = message(NFT_MSG_GETSETELEM, 0, set_ref.family, _list(set_ref))
    return kind, payload


def get_chain(chain: Chain) -> Message:
    """Asks for a chain; the kernel answers ENOENT if there is none."""
    payload = text(NFTA_CHAIN_TABLE, chain.table) + text(NFTA_CHAIN_NAME, chain.name)
    return message(NFT_MSG_GETCHAIN, 0, chain.family, payload)


def generation() -> Message:
    """A question that nf_tables can always answer."""
    return message(NFT_MSG_GETGEN, 0, 0, b"")


def all_chains() -> tuple[int, bytes]:
    kind, _, payload = message(NFT_MSG_GETCHAIN, 0, 0, b"")
    return kind, payload


def parse_chain(data: bytes) -> Chain:
    family, _, _ = unpacked(NFGENMSG, data)
    attrs = attributes(data, NFGENMSG.size)
    hook = attributes(attrs.get(NFTA_CHAIN_HOOK, b"")).get(NFTA_HOOK_HOOKNUM)
    drops = hook == BE32.pack(NF_INET_FORWARD) and attrs.get(NFTA_CHAIN_POLICY) == BE32.pack(NF_DROP)
    return Chain(family, name_of(attrs.get(NFTA_CHAIN_TABLE)), name_of(attrs.get(NFTA_CHAIN_NAME)), drops)


def filters_forwarded(data: bytes) -> bool:
    """True if the chain is hooked where forwarded packets pass."""
    hook = attributes(attributes(data, NFGENMSG.size).get(NFTA_CHAIN_HOOK, b"")).get(NFTA_HOOK_HOOKNUM)
    return hook == BE32.pack(NF_INET_FORWARD)


def name_of(payload: bytes | None) -> str:
    return (payload or b"").rstrip(b"\0").decode("utf-8", "replace")


def rules_of(family: int, table: str, chain: str = "") -> tuple[int, bytes]:
    """Returns a dump of the rules of a chain, or of the whole table if no chain is named."""
    names = text(NFTA_RULE_TABLE, table) + (text(NFTA_RULE_CHAIN, chain) if chain else b"")
    kind, _, payload = message(NFT_MSG_GETRULE, 0, family, names)
    return kind, payload


def parse_rule(data: bytes) -> tuple[str, str]:
    """Returns (table, chain) of a rule: only the chains that have rules matter here."""
    attrs = attributes(data, NFGENMSG.size)
    return name_of(attrs.get(NFTA_RULE_TABLE)), name_of(attrs.get(NFTA_RULE_CHAIN))


def transaction(messages: list[Message]) -> list[Message]:
    """Returns the messages as one batch: all or none take effect (kernel net/netfilter/nfnetlink.c).

    The last one alone is acknowledged; each of the others answers if it is refused.
    """
    edge = NFGENMSG.pack(0, 0, NFNL_SUBSYS_NFTABLES)
    quiet = [(kind, flags & ~NLM_F_ACK, payload) for kind, flags, payload in messages[:-1]]
    return [(NFNL_MSG_BATCH_BEGIN, 0, edge), *quiet, *messages[-1:], (NFNL_MSG_BATCH_END, 0, edge)]


def parse_elements(data: bytes) -> list[Element]:
    """Returns the elements of one answer."""
    return list(each_element(data))


def each_element(data: bytes) -> Iterator[Element]:
    """Yields the elements of one answer."""
    attrs = attributes(data, NFGENMSG.size)
    for kind, payload in each_attribute(attrs.get(NFTA_LIST_ELEMENTS, b"")):
        if kind == NFTA_LIST_ELEM:
            yield _parse_element(payload)


def _parse_element(data: bytes) -> Element:
    attrs = attributes(data)
    key = attributes(attrs.get(NFTA_ELEM_KEY, b"")).get(NFTA_DATA_VALUE, b"")
    target = attributes(attrs.get(NFTA_ELEM_DATA, b""))
    verdict = attributes(target.get(NFTA_DATA_VERDICT, b""))
    chain = verdict.get(NFTA_VERDICT_CHAIN, b"").rstrip(b"\0").decode("utf-8", "replace")
    leaves = verdict.get(NFTA_VERDICT_CODE) == VERDICT.pack(NFT_GOTO)
    value = target.get(NFTA_DATA_VALUE, b"")
    return Element(key, chain, comment_of(attrs.get(NFTA_ELEM_USERDATA, b"")), value, leaves)


def comment_of(userdata: bytes) -> str:
    """Returns the comment in user data: a list of (type, length, value) with one byte each for type and length."""
    position = 0
    while position + 2 <= len(userdata):
        kind, length = userdata[position], userdata[position + 1]
        if kind == UDATA_COMMENT:
            return userdata[position + 2 : position + 2 + length].rstrip(b"\0").decode("utf-8", "replace")
        position += 2 + length
    return ""
