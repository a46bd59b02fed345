"""nfnetlink messages of sets with thousands of keys: many in one message, without comments.

As in cni.kernel.nft, nothing here opens a socket.
"""

from __future__ import annotations

from cni.kernel.netlink import NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, attribute, attributes, each_attribute, nest, text
from cni.kernel.nft import (
    NFGENMSG,
    NFT_MSG_DELSETELEM,
    NFT_MSG_NEWSETELEM,
    NFTA_DATA_VALUE,
    NFTA_ELEM_KEY,
    NFTA_LIST_ELEM,
    NFTA_LIST_ELEMENTS,
    NFTA_LIST_SET,
    NFTA_LIST_TABLE,
    message,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.nft import SetRef
    from cni.kernel.rtnl import Message

AT_A_TIME = 1000  # keys in one message: the length of a list has 16 bits, and a key takes up to 28 bytes


def add_keys(set_ref: SetRef, keys: Iterable[bytes]) -> Message:
    """Adds keys; existing ones are kept. The kernel answers NetlinkError (ENOENT) if the set is missing."""
    return message(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_ACK, set_ref.family, _list(set_ref, keys))


def delete_keys(set_ref: SetRef, keys: Iterable[bytes]) -> Message:
    """Deletes keys. The kernel answers NetlinkError (ENOENT) if one of them is missing."""
    return message(NFT_MSG_DELSETELEM, NLM_F_ACK, set_ref.family, _list(set_ref, keys))


def _list(set_ref: SetRef, keys: Iterable[bytes]) -> bytes:
    listed = [
        nest(NFTA_LIST_ELEM, nest(NFTA_ELEM_KEY, attribute(NFTA_DATA_VALUE, key), flag=NLA_F_NESTED), flag=NLA_F_NESTED)
        for key in keys
    ]
    names = text(NFTA_LIST_TABLE, set_ref.table) + text(NFTA_LIST_SET, set_ref.name)
    return names + nest(NFTA_LIST_ELEMENTS, *listed, flag=NLA_F_NESTED)


def parse_keys(data: bytes) -> list[bytes]:
    """Returns the keys in one answer to `nft.all_elements`, or in one message about elements."""
    listed = attributes(data, NFGENMSG.size).get(NFTA_LIST_ELEMENTS, b"")
    elements = [attributes(payload) for kind, payload in each_attribute(listed) if kind == NFTA_LIST_ELEM]
    return [attributes(element.get(NFTA_ELEM_KEY, b"")).get(NFTA_DATA_VALUE, b"") for element in elements]
