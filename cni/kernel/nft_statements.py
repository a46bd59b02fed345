"""Expressions of nftables rules, from the statements of cni.plan.nftrule.

The expressions and their order are those of nft (1.0.6): it lists a rule as it is written only if it is encoded as nft
does it; tests compare with what nft loads. As in cni.kernel.nft, nothing here opens a socket.
"""

from __future__ import annotations

from _struct import Struct

from cni.kernel.netlink import attribute, text, u8
from cni.kernel.nft import NFT_GOTO, NFT_JUMP, NFT_RETURN, NFTA_VERDICT_CHAIN, NFTA_VERDICT_CODE, PROTOCOLS, VERDICT
from cni.kernel.nft_fields import FIELDS, TYPES, encoded, fields_of, length_of, padded, prerequisites
from cni.kernel.nft_rules import be32, counter, expression, masked, value, verdict
from cni.plan.nftrule import AnonymousSet, Range
from cni.protocol.address import IP, Net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cni.kernel.nft_fields import Field
    from cni.plan import nftrule
    from cni.plan.nftrule import Element, Match, Statement

    # Adds a message for an anonymous set of these fields; returns the attributes by which a lookup names it.
    AddSet = Callable[[list[Field], AnonymousSet], bytes]

NFT_REG_1, NFT_REG32_00 = 1, 8
REGISTER_WORDS = 4  # words of four bytes
NFT_CMP_EQ, NFT_CMP_NEQ, NFT_CMP_LTE, NFT_CMP_GTE, NFT_RANGE_NEQ = 0, 1, 3, 5, 1
NFT_LOOKUP_F_INV = 1
NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_DREG, NFTA_LOOKUP_SET_ID, NFTA_LOOKUP_FLAGS = 1, 2, 3, 4, 5
NFTA_NAT_TYPE, NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN, NFTA_NAT_REG_PROTO_MIN, NFT_NAT_DNAT = 1, 2, 3, 5, 1
NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY = 1, 0x10
NFTA_SET_KEY, NFTA_SET_SREG = {"meta": 2, "ct": 2}, {"meta": 3, "ct": 4}  # of expressions that set
REJECTS = {"port-unreachable": (2, 1), "admin-prohibited": (2, 3), "tcp reset": (1, 0)}  # (type, code)
VERDICTS = {"drop": 0, "accept": 1, "jump": NFT_JUMP, "goto": NFT_GOTO, "return": NFT_RETURN}
ALL_BITS = 0xFFFFFFFF
BE64, BE16 = Struct(">Q"), Struct(">H")
_LOADS: dict[tuple[str, tuple[int, ...]], bytes] = {}  # a policy's thousand rules read the same few fields


def register(words: int) -> int:
    """Returns the register after this many words."""
    return NFT_REG_1 + words // REGISTER_WORDS if words % REGISTER_WORDS == 0 else NFT_REG32_00 + words


def verdict_data(kind: str, chain: str) -> bytes:
    """Returns the attributes of a verdict."""
    code = attribute(NFTA_VERDICT_CODE, VERDICT.pack(VERDICTS[kind]))
    return code + (text(NFTA_VERDICT_CHAIN, chain) if chain else b"")


class RuleEncoder:
    """Makes the expressions of one rule, which is in a table of this family; `parts` holds them."""

    def __init__(self, family: int, add_set: AddSet) -> None:
        self._family, self._add_set = family, add_set
        self._stated = set[tuple[str, str]]()  # what the rule has asked already
        self.parts: list[bytes] = []

    def add(self, statement: Statement) -> None:
        """Adds a statement. Raises KeyError for a field or symbol that is not in the tables."""
        ENCODERS[type(statement).__name__](self, statement)

    def _require(self, fields: list[Field]) -> None:
        for field in fields:
            for name, symbol in prerequisites(self._family, field.protocol):
                is_known = name == "ether type" and ("meta protocol", symbol) in self._stated
                if not is_known and (name, symbol) not in self._stated:
                    self._stated.add((name, symbol))
                    required = FIELDS[name]
                    self._load(required)
                    self._compare(NFT_CMP_EQ, encoded(required, symbol))

    def _load(self, field: Field, words: int = 0, length: int = 0) -> None:
        """Loads a field, or its first bytes, into the register after so many words."""
        codes = (*field.codes[:-1], length) if length else field.codes
        numbers = register(words), *codes
        part = _LOADS.get((field.expression, numbers))
        if part is None:
            attributes = [be32(kind, number) for kind, number in enumerate(numbers, start=1)]
            part = _LOADS[field.expression, numbers] = expression(field.expression, *attributes)
        self.parts.append(part)

    def _load_all(self, concatenation: str) -> list[Field]:
        """Loads a concatenation, or a single field."""
        fields = fields_of(concatenation)
        self._require(fields)
        position = 0
        for field in fields:
            self._load(field, position)
            position += (length_of(field) + 3) // 4
        return fields

    def _compare(self, operator: int, data: bytes) -> None:
        self.parts.append(expression("cmp", be32(1, NFT_REG_1), be32(2, operator), value(3, data)))

    def _lookup(self, named: bytes, negated: bool = False, into: int | None = None) -> None:
        target = be32(NFTA_LOOKUP_DREG, into) if into is not None else b""
        flags = be32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV) if negated else b""
        self.parts.append(expression("lookup", named, be32(NFTA_LOOKUP_SREG, NFT_REG_1), target, flags))

    def match(self, op: Match) -> None:
        if isinstance(op.value, AnonymousSet):
            self._match_set(op, op.value)
            return
        (field,) = fields_of(op.field)
        self._require([field])
        operator = NFT_CMP_NEQ if op.negated else NFT_CMP_EQ
        if isinstance(op.value, Range):
            self._match_range(field, op.value, op.negated)
        elif isinstance(op.value, Net):
            self._match_network(field, op.value.network, operator)
        else:
            self._match_constant(field, op, operator, op.value)

    def _match_set(self, op: Match, elements: AnonymousSet) -> None:
        if len(elements.elements) == 1 and len(fields_of(op.field)) == 1:  # as nft does
            self.match(op._replace(value=elements.elements[0]))
            return
        fields = self._load_all(op.field)
        self._lookup(self._add_set(fields, elements), op.negated)

    def _match_constant(self, field: Field, op: Match, operator: int, constant: Element) -> None:
        if not op.negated and isinstance(constant, str):
            self._stated.add((op.field, constant))
        self._load(field)
        data = concatenated([field], constant)
        if op.mask:
            self.parts.append(masked(encoded(field, op.mask)))
        elif TYPES[field.type].flags and not op.negated:
            self.parts.append(masked(data))
            operator, data = NFT_CMP_NEQ, bytes(len(data))
        self._compare(operator, data)

    def _match_range(self, field: Field, span: Range, negated: bool) -> None:
        self._load(field)
        first, last = interval_of(field, span)
        if negated:
            bounds = value(3, first) + value(4, last)
            self.parts.append(expression("range", be32(1, NFT_REG_1), be32(2, NFT_RANGE_NEQ), bounds))
        else:
            self._compare(NFT_CMP_GTE, first)
            self._compare(NFT_CMP_LTE, last)

    def _match_network(self, field: Field, net: Net, operator: int) -> None:
        """Loads only the bytes that the prefix covers, or masks."""
        packed, bits = net.ip.packed, net.ip.bits
        if net.prefix and net.prefix % 8 == 0:
            self._load(field, length=net.prefix // 8)
            self._compare(operator, packed[: net.prefix // 8])
            return
        self._load(field)
        self.parts.append(masked(((1 << bits) - (1 << bits - net.prefix)).to_bytes(bits // 8, "big")))
        self._compare(operator, packed)

    def lookup(self, op: nftrule.Lookup) -> None:
        self._load_all(op.field)
        self._lookup(text(NFTA_LOOKUP_SET, op.set_name), op.negated)

    def verdict_map(self, op: nftrule.VerdictMap) -> None:
        self._load_all(op.field)
        self._lookup(text(NFTA_LOOKUP_SET, op.map_name), into=0)

    def verdict(self, op: nftrule.Verdict) -> None:
        self.parts.append(verdict(verdict_data(op.kind, op.chain)))

    def counter(self, _: nftrule.Counter) -> None:
        self.parts.append(counter())

    def limit(self, op: nftrule.Limit) -> None:
        rate = attribute(1, BE64.pack(op.rate)) + attribute(2, BE64.pack(1))
        self.parts.append(expression("limit", rate, be32(3, op.burst), be32(4, 0), be32(5, 0)))

    def log(self, op: nftrule.Log) -> None:
        prefix = text(2, op.prefix) if op.prefix else b""
        self.parts.append(expression("log", prefix, attribute(1, BE16.pack(op.group))))

    def masq(self, op: nftrule.Masq) -> None:
        flags = be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY) if op.fully_random else b""
        self.parts.append(expression("masq", flags))

    def dnat(self, op: nftrule.Dnat) -> None:
        self._load_all(op.field)
        self._lookup(text(NFTA_LOOKUP_SET, op.map_name), into=NFT_REG_1)
        port = register(1 if op.family == 4 else REGISTER_WORDS)
        kind = be32(NFTA_NAT_TYPE, NFT_NAT_DNAT) + be32(NFTA_NAT_FAMILY, PROTOCOLS[op.family])
        target = be32(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1) + be32(NFTA_NAT_REG_PROTO_MIN, port)
        self.parts.append(expression("nat", kind, target))

    def set_mark(self, op: nftrule.SetMark) -> None:
        field = FIELDS["meta mark"]
        self._load(field)
        flipped = op.bits if op.on else 0
        self.parts.append(masked(encoded(field, ALL_BITS ^ op.bits), encoded(field, flipped)))
        self._set(field)

    def set_label(self, op: nftrule.SetLabel) -> None:
        field = FIELDS["ct label"]
        self.parts.append(expression("immediate", be32(1, NFT_REG_1), value(2, encoded(field, op.label))))
        self._set(field)

    def _set(self, field: Field) -> None:
        key = be32(NFTA_SET_KEY[field.expression], field.codes[0])
        self.parts.append(expression(field.expression, key, be32(NFTA_SET_SREG[field.expression], NFT_REG_1)))

    def reject(self, op: nftrule.Reject) -> None:
        kind, code = REJECTS[op.answer]
        self.parts.append(expression("reject", be32(1, kind), u8(2, code)))


ENCODERS: dict[str, Callable[[RuleEncoder, Any], None]] = {
    "Match": RuleEncoder.match,
    "Lookup": RuleEncoder.lookup,
    "VerdictMap": RuleEncoder.verdict_map,
    "Verdict": RuleEncoder.verdict,
    "Counter": RuleEncoder.counter,
    "Limit": RuleEncoder.limit,
    "Log": RuleEncoder.log,
    "Masq": RuleEncoder.masq,
    "Dnat": RuleEncoder.dnat,
    "SetMark": RuleEncoder.set_mark,
    "SetLabel": RuleEncoder.set_label,
    "Reject": RuleEncoder.reject,
}


def interval_of(field: Field, element: Element) -> tuple[bytes, bytes]:
    """Returns the first and last key of a constant, range or network."""
    if isinstance(element, Net):
        return element.network.ip.packed, element.last.packed
    if isinstance(element, Range):
        return encoded(field, element.first), encoded(field, element.last)
    key = concatenated([field], element)
    return key, key


def concatenated(fields: list[Field], constants: Element) -> bytes:
    """Returns the key of a constant, or of a tuple of them, one for each field. Raises KeyError."""
    if isinstance(constants, (str, int, bytes, IP, Net)):
        return encoded(fields[0], constants)
    return b"".join([padded(encoded(*pair)) for pair in zip(fields, constants, strict=True)])
