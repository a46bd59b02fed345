"""nfnetlink messages of sets with thousands of keys: many in one message, without comments.

As in cni.kernel.nft, nothing here opens a socket.
"""

from __future__ import annotations

from cni.kernel.netlink import NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, attribute, attributes, each_attribute, nest, text
from cni.kernel.nft import (
    BE32,
    NFGENMSG,
    NFT_GOTO,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    NFTA_DATA_VALUE,
    NFTA_DATA_VERDICT,
    NFTA_ELEM_DATA,
    NFTA_ELEM_KEY,
    NFTA_LIST_ELEM,
    NFTA_LIST_ELEMENTS,
    NFTA_LIST_SET,
    NFTA_LIST_TABLE,
    NFTA_VERDICT_CHAIN,
    NFTA_VERDICT_CODE,
    VERDICT,
    message,
)
from cni.kernel.nft_ruleset import NFT_SET_ELEM_INTERVAL_END, NFTA_ELEM_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.nft import SetRef
    from cni.kernel.rtnl import Message

AT_A_TIME = 1000  # keys in one message: the length of a list has 16 bits, and a key takes up to 32 bytes
VERDICTS_AT_A_TIME = 200  # the name of a chain has up to 255 bytes


def add_keys(set_ref: SetRef, keys: Iterable[bytes]) -> Message:
    """Adds keys; existing ones are kept. The kernel answers NetlinkError (ENOENT) if the set is missing."""
    return message(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_ACK, set_ref.family, _list(set_ref, keys))


def delete_keys(set_ref: SetRef, keys: Iterable[bytes]) -> Message:
    """Deletes keys. The kernel answers NetlinkError (ENOENT) if one of them is missing."""
    return message(NFT_MSG_DELSETELEM, NLM_F_ACK, set_ref.family, _list(set_ref, keys))


def add_verdicts(set_ref: SetRef, chains: Iterable[tuple[bytes, str]]) -> Message:
    """Adds keys to a map, each with the chain to go to. A key that has another verdict is an error (EBUSY)."""
    code = attribute(NFTA_VERDICT_CODE, VERDICT.pack(NFT_GOTO))
    elements = []
    for key, chain in chains:
        verdict = nest(NFTA_DATA_VERDICT, code, text(NFTA_VERDICT_CHAIN, chain), flag=NLA_F_NESTED)
        elements.append(_key(key) + nest(NFTA_ELEM_DATA, verdict, flag=NLA_F_NESTED))
    return message(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_ACK, set_ref.family, _listed(set_ref, elements))


def _key(key: bytes) -> bytes:
    return nest(NFTA_ELEM_KEY, attribute(NFTA_DATA_VALUE, key), flag=NLA_F_NESTED)


def _list(set_ref: SetRef, keys: Iterable[bytes]) -> bytes:
    return _listed(set_ref, [_key(key) for key in keys])


def _listed(set_ref: SetRef, elements: Iterable[bytes]) -> bytes:
    listed = [nest(NFTA_LIST_ELEM, element, flag=NLA_F_NESTED) for element in elements]
    names = text(NFTA_LIST_TABLE, set_ref.table) + text(NFTA_LIST_SET, set_ref.name)
    return names + nest(NFTA_LIST_ELEMENTS, *listed, flag=NLA_F_NESTED)


def parse_keys(data: bytes) -> list[bytes]:
    """Returns the keys in one answer to `nft.all_elements`, or in one message about elements."""
    return [_key_of(element) for element in _elements(data)]


def parse_bounds(data: bytes) -> list[tuple[bytes, bool]]:
    """Returns the elements of an interval set: a key, and True where an interval has ended before it."""
    end = BE32.pack(NFT_SET_ELEM_INTERVAL_END)
    return [(_key_of(element), element.get(NFTA_ELEM_FLAGS) == end) for element in _elements(data)]


def _elements(data: bytes) -> list[dict[int, bytes]]:
    listed = attributes(data, NFGENMSG.size).get(NFTA_LIST_ELEMENTS, b"")
    return [attributes(payload) for kind, payload in each_attribute(listed) if kind == NFTA_LIST_ELEM]


def _key_of(element: dict[int, bytes]) -> bytes:
    return attributes(element.get(NFTA_ELEM_KEY, b"")).get(NFTA_DATA_VALUE, b"")
