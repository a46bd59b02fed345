"""nftables messages, read by pyroute2 as they were meant, and what it writes read as it was meant."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import nfnl
from cni.kernel.netlink import frame
from cni.kernel.nfnl import Element, Place
from cni.spec.address import parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.rtnl import Message

WHY = "pyroute2 is the oracle (pip install pyroute2)"
slot: Any = pytest.importorskip("pyroute2.netlink", reason=WHY).nla_slot
oracle: Any = pytest.importorskip("pyroute2.netlink.nfnetlink.nftsocket", reason=WHY)
NESTED = 0x8000
LABEL = "podwire 0123456789abcdef 0123456789abcdef net/c1/eth0"
MAP = Place(1, "podwire", "masquerade4")
SET = Place(7, "podwire", "guarded")
ADDRESS = Element(parse_ip("10.1.2.3").packed, "masquerade-10.1.2.0/24", LABEL)
ADDRESS6 = Element(parse_ip("2001:db8::3").packed, "masquerade-2001_db8__/64", LABEL)
PORT = Element(b"veth0".ljust(16, b"\0"), "", LABEL)


def framed(message: Message) -> bytes:
    kind, flags, payload = message
    return frame(kind, flags, 1, payload)


def told(kind: Any, message: Message) -> Any:
    """What pyroute2 understands."""
    found = kind(framed(message))
    found.decode()
    return found


def key(element: Element) -> tuple[str, Any]:
    return ("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", element.key)]})


def jump(element: Element, code: Any = "NFT_JUMP") -> tuple[str, Any]:
    verdict = [("NFTA_VERDICT_CODE", code), ("NFTA_VERDICT_CHAIN", element.chain)]
    return ("NFTA_SET_ELEM_DATA", {"attrs": [("NFTA_DATA_VERDICT", {"attrs": verdict})]})


def comment(element: Element) -> tuple[str, Any]:
    return ("NFTA_SET_ELEM_USERDATA", [("NFTNL_UDATA_SET_ELEM_COMMENT", element.label.encode())])


def listed(place: Place, elements: list[Any]) -> list[tuple[str, Any]]:
    names: list[tuple[str, Any]] = [
        ("NFTA_SET_ELEM_LIST_TABLE", place.table),
        ("NFTA_SET_ELEM_LIST_SET", place.name),
    ]
    return names + ([("NFTA_SET_ELEM_LIST_ELEMENTS", elements)] if elements else [])


def plain(value: Any) -> Any:
    """A decoded message as lists, tuples and values; pyroute2 keeps attributes in slots that decode when asked."""
    if isinstance(value, slot):
        return (value.name, plain(value.value))
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value


def without_flag(value: Any) -> list[str]:
    """The names of all attributes that hold others but do not say so."""
    if isinstance(value, slot):
        inner = value.value
        nest = isinstance(inner, dict) or value.name.endswith("LIST_ELEMENTS")
        return ([value.name] if nest and not value.get_flags() else []) + without_flag(inner)
    if isinstance(value, dict):
        return without_flag(value["attrs"])
    return [name for one in value for name in without_flag(one)] if isinstance(value, list) else []


CASES: dict[str, tuple[Message, int, int, Place, list[Any]]] = {
    "add to a map": (
        nfnl.add_element(MAP, ADDRESS), 12, 0x604, MAP, [{"attrs": [key(ADDRESS), jump(ADDRESS), comment(ADDRESS)]}],
    ),
    "add to a map of IPv6": (
        nfnl.add_element(MAP, ADDRESS6), 12, 0x604, MAP,
        [{"attrs": [key(ADDRESS6), jump(ADDRESS6), comment(ADDRESS6)]}],
    ),
    "add to a set": (nfnl.add_element(SET, PORT), 12, 0x604, SET, [{"attrs": [key(PORT), comment(PORT)]}]),
    "delete": (nfnl.delete_element(MAP, ADDRESS), 14, 0x4, MAP, [{"attrs": [key(ADDRESS)]}]),
    "get": (nfnl.get_element(MAP, ADDRESS), 13, 0, MAP, [{"attrs": [key(ADDRESS)]}]),
    "all": ((nfnl.all_elements(MAP)[0], 0, nfnl.all_elements(MAP)[1]), 13, 0, MAP, []),
}  # fmt: skip


@pytest.mark.parametrize(("message", "kind", "flags", "place", "elements"), CASES.values(), ids=CASES)
def test_an_element_is_understood_as_it_is_meant(
    message: Message, kind: int, flags: int, place: Place, elements: list[Any]
) -> None:
    found = told(oracle.nft_set_elem_list_msg, message)
    assert (found["header"]["type"], found["header"]["flags"]) == (10 << 8 | kind, flags)
    assert (found["nfgen_family"], found["version"], found["res_id"]) == (place.family, 0, 0)
    assert plain(found.getvalue()["attrs"]) == listed(place, elements)


def test_every_nest_says_that_it_is_one() -> None:
    """Kernels refuse a nest without its flag where they check strictly (lib/nlattr.c, since 5.2)."""
    kind, flags, payload = nfnl.add_element(MAP, ADDRESS)
    assert without_flag(told(oracle.nft_set_elem_list_msg, (kind, flags, payload)).getvalue()["attrs"]) == []
    assert struct.pack("=H", 1 | NESTED) in payload  # NFTA_LIST_ELEM, which pyroute2 does not show
    unflagged = payload.replace(struct.pack("=H", 2 | NESTED), struct.pack("=H", 2))
    shown = without_flag(told(oracle.nft_set_elem_list_msg, (kind, flags, unflagged)).getvalue()["attrs"])
    assert shown == ["NFTA_SET_ELEM_DATA", "NFTA_DATA_VERDICT"]


def test_the_rules_of_a_chain_are_asked_for() -> None:
    kind, payload = nfnl.rules_of(1, "podwire", "postrouting")
    found = told(oracle.nft_rule_msg, (kind, 0, payload))
    assert (kind, found["nfgen_family"]) == (10 << 8 | 7, 1)
    assert plain(found.getvalue()["attrs"]) == [("NFTA_RULE_TABLE", "podwire"), ("NFTA_RULE_CHAIN", "postrouting")]


def test_a_transaction_has_its_edges() -> None:
    inner = nfnl.delete_element(MAP, ADDRESS)
    first, middle, last = nfnl.transaction([inner])
    assert middle == inner
    for edge, kind in ((first, 16), (last, 17)):
        assert edge == (kind, 0, struct.pack(">BBH", 0, 0, 10))


@pytest.mark.parametrize("place", [MAP, SET])
@pytest.mark.parametrize(("make", "element"), [(nfnl.add_element, ADDRESS), (nfnl.add_element, PORT)])
def test_an_element_reads_back_as_it_was_added(
    make: Callable[[Place, Element], Message], element: Element, place: Place
) -> None:
    assert nfnl.parse_elements(make(place, element)[2]) == [element]


def test_several_elements_are_read_as_pyroute2_writes_them() -> None:
    """It counts the members of a list, where the kernel calls each of them NFTA_LIST_ELEM."""
    listed_elements = b""
    for element in (ADDRESS, ADDRESS6):
        message = oracle.nft_set_elem_list_msg.set_elem()
        message["attrs"] = [key(element), jump(element, -3), comment(element)]
        message.encode()
        content = bytes(message.data)[4:]
        listed_elements += struct.pack("=HH", 4 + len(content), 1 | NESTED) + content
    payload = struct.pack("=HH", 4 + len(listed_elements), 3 | NESTED) + listed_elements
    assert nfnl.parse_elements(struct.pack(">BBH", 1, 0, 0) + payload) == [ADDRESS, ADDRESS6]


def test_an_answer_without_elements_is_empty() -> None:
    assert nfnl.parse_elements(struct.pack(">BBH", 1, 0, 0)) == []


@pytest.mark.parametrize(
    ("userdata", "label"),
    [
        (b"", ""),
        (b"\0", ""),
        (b"\x00\x02a\0", "a"),
        (b"\x01\x04\0\0\0\0\x00\x02b\0", "b"),
        (b"\x01\x04\0\0\0\0", ""),
        (b"\x00\xffab", "ab"),
        (b"\x00\x02\xff\0", "\ufffd"),
    ],
)
def test_a_comment_is_found_among_user_data(userdata: bytes, label: str) -> None:
    assert nfnl._comment(userdata) == label
