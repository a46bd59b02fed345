"""nftables messages, read by pyroute2 as they were meant, and what it writes read as it was meant."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import nft, nft_keys, nft_rules
from cni.kernel.nft import Element, SetRef
from cni.protocol.address import parse_ip
from tests.unit.oracle import WHY, framed, plain, slot

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

oracle: Any = pytest.importorskip("pyroute2.netlink.nfnetlink.nftsocket", reason=WHY)
NESTED = 0x8000
LABEL = "podwire 0123456789abcdef 0123456789abcdef net/c1/eth0"
MAP = SetRef(1, "podwire", "masquerade4")
SET = SetRef(7, "podwire", "guarded")
ADDRESS = Element(parse_ip("10.1.2.3").packed, "masquerade-10.1.2.0/24", LABEL)
ADDRESS6 = Element(parse_ip("2001:db8::3").packed, "masquerade-2001_db8__/64", LABEL)
PORT = Element(b"veth0".ljust(16, b"\0"), "", LABEL)
VALUES = SetRef(1, "podwire", "hostports4")
VALUE = Element(b"\x06\0\0\0\0\x50\0\0", "", LABEL, parse_ip("10.1.2.3").packed + b"\x1f\x90\0\0")
LEAVES = Element(VALUE.key, "condition-437d624d262f", LABEL, leaves=True)
ELEMENTS = [ADDRESS, ADDRESS6, VALUE, LEAVES]


def decode(kind: Any, message: Message) -> Any:
    """Returns the message as pyroute2 reads it."""
    decoded = kind(framed(message))
    decoded.decode()
    return decoded


def key(element: Element) -> tuple[str, Any]:
    return ("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", element.key)]})


def value(element: Element) -> tuple[str, Any]:
    return ("NFTA_SET_ELEM_DATA", {"attrs": [("NFTA_DATA_VALUE", element.value)]})


def jump(element: Element, code: Any = "NFT_JUMP") -> tuple[str, Any]:
    verdict = [("NFTA_VERDICT_CODE", code), ("NFTA_VERDICT_CHAIN", element.chain)]
    return ("NFTA_SET_ELEM_DATA", {"attrs": [("NFTA_DATA_VERDICT", {"attrs": verdict})]})


def comment(element: Element) -> tuple[str, Any]:
    return ("NFTA_SET_ELEM_USERDATA", [("NFTNL_UDATA_SET_ELEM_COMMENT", element.label.encode())])


def listed(place: SetRef, elements: list[Any]) -> list[tuple[str, Any]]:
    names: list[tuple[str, Any]] = [
        ("NFTA_SET_ELEM_LIST_TABLE", place.table),
        ("NFTA_SET_ELEM_LIST_SET", place.name),
    ]
    return names + ([("NFTA_SET_ELEM_LIST_ELEMENTS", elements)] if elements else [])


def without_flag(value: Any) -> list[str]:
    """The names of all attributes that hold others but do not say so."""
    if isinstance(value, slot):
        inner = value.value
        nest = isinstance(inner, dict) or value.name.endswith("LIST_ELEMENTS")
        return ([value.name] if nest and not value.get_flags() else []) + without_flag(inner)
    if isinstance(value, dict):
        return without_flag(value["attrs"])
    return [name for item in value for name in without_flag(item)] if isinstance(value, list) else []


KEYS, TWO = SetRef(1, "podwired", "peers4"), [parse_ip("192.0.2.2").packed, parse_ip("192.0.2.3").packed]


def bare(element_key: bytes) -> tuple[str, Any]:
    return ("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", element_key)]})


def test_keys_are_read_as_they_are_written() -> None:
    assert nft_keys.parse_keys(nft_keys.add_keys(KEYS, TWO)[2]) == TWO


CASES: dict[str, tuple[Message, int, int, SetRef, list[Any]]] = {
    "add to a map": (
        nft.add_element(MAP, ADDRESS), 12, 0x604, MAP, [{"attrs": [key(ADDRESS), jump(ADDRESS), comment(ADDRESS)]}],
    ),
    "add to a map of IPv6": (
        nft.add_element(MAP, ADDRESS6), 12, 0x604, MAP,
        [{"attrs": [key(ADDRESS6), jump(ADDRESS6), comment(ADDRESS6)]}],
    ),
    "add to a set": (nft.add_element(SET, PORT), 12, 0x604, SET, [{"attrs": [key(PORT), comment(PORT)]}]),
    "add to a map to values": (
        nft.add_element(VALUES, VALUE), 12, 0x604, VALUES, [{"attrs": [key(VALUE), value(VALUE), comment(VALUE)]}],
    ),
    "add to a map, leaving": (
        nft.add_element(VALUES, LEAVES), 12, 0x604, VALUES,
        [{"attrs": [key(LEAVES), jump(LEAVES, "NFT_GOTO"), comment(LEAVES)]}],
    ),
    "delete": (nft.delete_element(MAP, ADDRESS), 14, 0x4, MAP, [{"attrs": [key(ADDRESS)]}]),
    "get": (nft.get_element(MAP, ADDRESS), 13, 0, MAP, [{"attrs": [key(ADDRESS)]}]),
    "add keys to a set": (nft_keys.add_keys(KEYS, TWO), 12, 0x404, KEYS, [{"attrs": [bare(ip)]} for ip in TWO]),
    "delete keys": (nft_keys.delete_keys(KEYS, TWO), 14, 0x4, KEYS, [{"attrs": [bare(ip)]} for ip in TWO]),
    "all": ((nft.all_elements(MAP)[0], 0, nft.all_elements(MAP)[1]), 13, 0, MAP, []),
}  # fmt: skip


@pytest.mark.parametrize(("message", "kind", "flags", "place", "elements"), CASES.values(), ids=CASES)
def test_an_element_is_understood_as_it_is_meant(
    message: Message, kind: int, flags: int, place: SetRef, elements: list[Any]
) -> None:
    decoded = decode(oracle.nft_set_elem_list_msg, message)
    assert (decoded["header"]["type"], decoded["header"]["flags"]) == (10 << 8 | kind, flags)
    assert (decoded["nfgen_family"], decoded["version"], decoded["res_id"]) == (place.family, 0, 0)
    assert plain(decoded.getvalue()["attrs"]) == listed(place, elements)


def test_every_nest_says_that_it_is_one() -> None:
    """Kernels refuse a nest without its flag where they check strictly (lib/nlattr.c, since 5.2)."""
    for element in (VALUE, LEAVES, PORT):
        assert (
            without_flag(decode(oracle.nft_set_elem_list_msg, nft.add_element(VALUES, element)).getvalue()["attrs"])
            == []
        )
    kind, flags, payload = nft.add_element(MAP, ADDRESS)
    assert without_flag(decode(oracle.nft_set_elem_list_msg, (kind, flags, payload)).getvalue()["attrs"]) == []
    assert struct.pack("=H", 1 | NESTED) in payload  # NFTA_LIST_ELEM, which pyroute2 does not show
    unflagged = payload.replace(struct.pack("=H", 2 | NESTED), struct.pack("=H", 2))
    shown = without_flag(decode(oracle.nft_set_elem_list_msg, (kind, flags, unflagged)).getvalue()["attrs"])
    assert shown == ["NFTA_SET_ELEM_DATA", "NFTA_DATA_VERDICT"]


@pytest.mark.parametrize(
    ("question", "names"),
    [
        (nft.rules_of(1, "podwire"), [("NFTA_RULE_TABLE", "podwire")]),
        (nft.rules_of(1, "filter", "FORWARD"), [("NFTA_RULE_TABLE", "filter"), ("NFTA_RULE_CHAIN", "FORWARD")]),
    ],
)
def test_the_rules_of_a_table_or_chain_are_asked_for(question: tuple[int, bytes], names: list[tuple[str, Any]]) -> None:
    kind, payload = question
    decoded = decode(oracle.nft_rule_msg, (kind, 0, payload))
    assert (kind, decoded["nfgen_family"]) == (10 << 8 | 7, 1)
    assert plain(decoded.getvalue()["attrs"]) == names


def test_chains_are_asked_for() -> None:
    decoded = decode(oracle.nft_chain_msg, nft.get_chain(nft.Chain(2, "filter", "FORWARD")))
    assert (decoded["header"]["type"], decoded["header"]["flags"], decoded["nfgen_family"]) == (10 << 8 | 4, 0, 2)
    assert plain(decoded.getvalue()["attrs"]) == [("NFTA_CHAIN_TABLE", "filter"), ("NFTA_CHAIN_NAME", "FORWARD")]
    kind, payload = nft.all_chains()
    every = decode(oracle.nft_chain_msg, (kind, 0, payload))
    assert (kind, every["nfgen_family"], every.getvalue()["attrs"]) == (10 << 8 | 4, 0, [])


def test_the_generation_is_asked_for() -> None:
    decoded = decode(oracle.nft_gen_msg, nft.generation())
    assert (decoded["header"]["type"], decoded["header"]["flags"]) == (10 << 8 | oracle.NFT_MSG_GETGEN, 0)
    assert (decoded["nfgen_family"], decoded.getvalue()["attrs"]) == (0, [])


@pytest.mark.parametrize(
    ("hook", "policy", "drops"),
    [
        (2, 0, True),
        (2, 1, False),
        (1, 0, False),
        (3, 0, False),
        (2, None, False),
        (None, 0, False),
        (None, None, False),
    ],
)
def test_a_chain_is_read_as_pyroute2_writes_it(hook: int | None, policy: int | None, drops: bool) -> None:
    message = oracle.nft_chain_msg()
    message["nfgen_family"] = 2
    message["attrs"] = [("NFTA_CHAIN_TABLE", "filter"), ("NFTA_CHAIN_NAME", "FORWARD")]
    if hook is not None:
        told_hook = [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", 0)]
        message["attrs"].append(("NFTA_CHAIN_HOOK", {"attrs": told_hook}))
    if policy is not None:
        message["attrs"].append(("NFTA_CHAIN_POLICY", policy))
    message.encode()
    assert nft.parse_chain(bytes(message.data)[16:]) == nft.Chain(2, "filter", "FORWARD", drops)
    assert nft.filters_forwarded(bytes(message.data)[16:]) == (hook == 2)


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        (
            [("NFTA_RULE_TABLE", "podwire"), ("NFTA_RULE_CHAIN", "hairpin-2001_db8__/64"), ("NFTA_RULE_HANDLE", 9)],
            ("podwire", "hairpin-2001_db8__/64"),
        ),
        ([("NFTA_RULE_CHAIN", "input")], ("", "input")),
        ([], ("", "")),
    ],
)
def test_a_rule_is_read_as_pyroute2_writes_it(attrs: list[tuple[str, Any]], expected: tuple[str, str]) -> None:
    message = oracle.nft_rule_msg()
    message["attrs"] = attrs
    message.encode()
    assert nft.parse_rule(bytes(message.data)[16:]) == expected


@pytest.mark.parametrize(
    ("family", "number", "text"),
    [
        (nft.NFPROTO_INET, 1, "inet filter"),
        (nft.NFPROTO_IPV4, 2, "ip filter"),
        (nft.NFPROTO_IPV6, 10, "ip6 filter"),
        (nft.NFPROTO_BRIDGE, 7, "7 filter"),
    ],
)
def test_a_family_has_its_number_and_the_name_that_nft_knows(family: int, number: int, text: str) -> None:
    assert family == number
    assert nft.Chain(family, "filter", "FORWARD").table_text == text
    assert not nft.Chain(family, "filter", "FORWARD").drops_forwarded


def test_a_transaction_has_its_edges() -> None:
    inner = nft.delete_element(MAP, ADDRESS)
    first, middle, last = nft.transaction([inner])
    assert middle == inner
    for edge, kind in ((first, 16), (last, 17)):
        assert edge == (kind, 0, struct.pack(">BBH", 0, 0, 10))


@pytest.mark.parametrize("place", [MAP, SET])
@pytest.mark.parametrize("element", [ADDRESS, ADDRESS6, PORT, VALUE, LEAVES])
def test_an_element_reads_back_as_it_was_added(element: Element, place: SetRef) -> None:
    assert nft.parse_elements(nft.add_element(place, element)[2]) == [element]


def test_several_elements_are_read_as_pyroute2_writes_them() -> None:
    """It counts the members of a list, where the kernel calls each of them NFTA_LIST_ELEM."""
    listed_elements = b""
    data = [jump(ADDRESS, -3), jump(ADDRESS6, -3), value(VALUE), jump(LEAVES, -4)]
    for element, target in zip(ELEMENTS, data, strict=True):
        message = oracle.nft_set_elem_list_msg.set_elem()
        message["attrs"] = [key(element), target, comment(element)]
        message.encode()
        content = bytes(message.data)[4:]
        listed_elements += struct.pack("=HH", 4 + len(content), 1 | NESTED) + content
    payload = struct.pack("=HH", 4 + len(listed_elements), 3 | NESTED) + listed_elements
    assert nft.parse_elements(struct.pack(">BBH", 1, 0, 0) + payload) == ELEMENTS
    assert next(nft.each_element(struct.pack(">BBH", 1, 0, 0) + payload)) == ELEMENTS[0]


def test_an_answer_without_elements_is_empty() -> None:
    assert nft.parse_elements(struct.pack(">BBH", 1, 0, 0)) == []


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
    assert nft.comment_of(userdata) == label


def test_every_builder_and_reader_is_held_to_the_oracle() -> None:
    with open(__file__, encoding="ascii") as file:
        text = file.read()
    names = {
        name
        for name, value in vars(nft).items()
        if callable(value) and getattr(value, "__module__", "") == nft.__name__ and name.islower() and name[0] != "_"
    }
    assert len(names) > 7
    parts = {"message", "name_of"}
    assert {name for name in names - parts if f"nft.{name}(" not in text} == set()


def test_a_table_is_deleted_by_its_name() -> None:
    decoded = decode(oracle.nft_table_msg, nft_rules.delete_table(nft.NFPROTO_IPV4, "flannel-ipv4"))
    assert (decoded["header"]["type"], decoded["header"]["flags"], decoded["nfgen_family"]) == (10 << 8 | 2, 0x4, 2)
    assert plain(decoded.getvalue()["attrs"]) == [("NFTA_TABLE_NAME", "flannel-ipv4")]
