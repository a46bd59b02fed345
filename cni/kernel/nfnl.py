"""nfnetlink messages of nftables: elements of maps and sets, and the dumps that tell what is there.

Only elements come and go with containers; tables, chains and rules are text for nft (cni.plan.ruleset), loaded when
they are missing. Building and reading only, as in cni.kernel.rtnl (kernel include/uapi/linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

from _struct import Struct

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
)
from cni.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NFT_MSG_GETRULE, NFT_MSG_NEWSETELEM, NFT_MSG_GETSETELEM, NFT_MSG_DELSETELEM = 7, 12, 13, 14
NFPROTO_INET, NFPROTO_BRIDGE = 1, 7

NFTA_RULE_TABLE, NFTA_RULE_CHAIN = 1, 2
NFTA_LIST_TABLE, NFTA_LIST_SET, NFTA_LIST_ELEMENTS, NFTA_LIST_ELEM = 1, 2, 3, 1
NFTA_ELEM_KEY, NFTA_ELEM_DATA, NFTA_ELEM_USERDATA = 1, 2, 6
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
NFT_JUMP, NFT_GOTO = -3, -4
UDATA_COMMENT = 0  # libnftnl: NFTNL_UDATA_SET_ELEM_COMMENT

NFGENMSG = Struct(">BBH")  # family, version, resource
VERDICT = Struct(">i")


class Place(Record):
    """A map or set: nfproto family, table, name."""

    family: int
    table: str
    name: str


class Element(Record):
    """Of a set (neither chain nor value), of a verdict map (`chain`, which it goes to without return if `leaves`), or
    of a map to values. `label` is the comment.
    """

    key: bytes
    chain: str
    label: str
    value: bytes = b""
    leaves: bool = False


def _message(kind: int, flags: int, family: int, payload: bytes) -> Message:
    return NFNL_SUBSYS_NFTABLES << 8 | kind, flags, NFGENMSG.pack(family, 0, 0) + payload


def _key(element: Element) -> bytes:
    return nest(NFTA_ELEM_KEY, attribute(NFTA_DATA_VALUE, element.key), flag=NLA_F_NESTED)


def _list(place: Place, *elements: bytes) -> bytes:
    payload = text(NFTA_LIST_TABLE, place.table) + text(NFTA_LIST_SET, place.name)
    listed = [nest(NFTA_LIST_ELEM, element, flag=NLA_F_NESTED) for element in elements]
    return payload + (nest(NFTA_LIST_ELEMENTS, *listed, flag=NLA_F_NESTED) if listed else b"")


def add_element(place: Place, element: Element) -> Message:
    """Refused with EEXIST where the key is taken, with ENOENT where table, map or chain is missing."""
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
    return _message(NFT_MSG_NEWSETELEM, flags, place.family, _list(place, parts))


def delete_element(place: Place, element: Element) -> Message:
    return _message(NFT_MSG_DELSETELEM, NLM_F_ACK, place.family, _list(place, _key(element)))


def get_element(place: Place, element: Element) -> Message:
    """Refused with ENOENT where the key is not there."""
    return _message(NFT_MSG_GETSETELEM, 0, place.family, _list(place, _key(element)))


def all_elements(place: Place) -> tuple[int, bytes]:
    kind, _, payload = _message(NFT_MSG_GETSETELEM, 0, place.family, _list(place))
    return kind, payload


def rules_of(family: int, table: str) -> tuple[int, bytes]:
    kind, _, payload = _message(NFT_MSG_GETRULE, 0, family, text(NFTA_RULE_TABLE, table))
    return kind, payload


def parse_rule(data: bytes) -> tuple[str, str]:
    """(table, chain) of a rule: which chains have rules is all that is asked."""
    found = attributes(data, NFGENMSG.size)
    table, chain = (found.get(kind, b"").rstrip(b"\0") for kind in (NFTA_RULE_TABLE, NFTA_RULE_CHAIN))
    return table.decode("utf-8", "replace"), chain.decode("utf-8", "replace")


def transaction(messages: list[Message]) -> list[Message]:
    """The messages as one batch: all or none take effect (kernel net/netfilter/nfnetlink.c)."""
    edge = NFGENMSG.pack(0, 0, NFNL_SUBSYS_NFTABLES)
    return [(NFNL_MSG_BATCH_BEGIN, 0, edge), *messages, (NFNL_MSG_BATCH_END, 0, edge)]


def parse_elements(data: bytes) -> list[Element]:
    """The elements of one answer."""
    found = attributes(data, NFGENMSG.size)
    listed = each_attribute(found.get(NFTA_LIST_ELEMENTS, b""))
    return [_parse_element(payload) for kind, payload in listed if kind == NFTA_LIST_ELEM]


def _parse_element(data: bytes) -> Element:
    found = attributes(data)
    key = attributes(found.get(NFTA_ELEM_KEY, b"")).get(NFTA_DATA_VALUE, b"")
    target = attributes(found.get(NFTA_ELEM_DATA, b""))
    verdict = attributes(target.get(NFTA_DATA_VERDICT, b""))
    chain = verdict.get(NFTA_VERDICT_CHAIN, b"").rstrip(b"\0").decode("utf-8", "replace")
    leaves = verdict.get(NFTA_VERDICT_CODE) == VERDICT.pack(NFT_GOTO)
    value = target.get(NFTA_DATA_VALUE, b"")
    return Element(key, chain, _comment(found.get(NFTA_ELEM_USERDATA, b"")), value, leaves)


def _comment(userdata: bytes) -> str:
    """User data is a list of (type, length, value) with one byte each for type and length."""
    position = 0
    while position + 2 <= len(userdata):
        kind, length = userdata[position], userdata[position + 1]
        if kind == UDATA_COMMENT:
            return userdata[position + 2 : position + 2 + length].rstrip(b"\0").decode("utf-8", "replace")
        position += 2 + length
    return ""
