"""nfnetlink messages that create nftables objects, of the values in cni.plan.nftrule: tables, chains with hooks, sets,
maps, rules and the anonymous sets of these.

Creation is without NLM_F_EXCL: an object that is there stays, if it is of the same kind. Only rules would be doubled,
so that a chain is flushed before its rules are added, in the same transaction. As in cni.kernel.nft, nothing here opens
a socket.
"""

from __future__ import annotations

from cni.kernel import nft
from cni.kernel.netlink import NLA_F_NESTED, NLM_F_ACK, NLM_F_CREATE, U32, attribute, nest, text
from cni.kernel.nft import message
from cni.kernel.nft_fields import TYPES, fields_of, number_of, remembered, types_of, types_read
from cni.kernel.nft_rules import (
    NFT_MSG_DELRULE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFTA_CHAIN_TYPE,
    NFTA_HOOK_PRIORITY,
    NFTA_RULE_EXPRESSIONS,
    NFTA_RULE_USERDATA,
    NFTA_TABLE_NAME,
    NLM_F_APPEND,
    be32,
    delete_table,
)
from cni.kernel.nft_statements import RuleEncoder, concatenated, interval_of
from cni.plan import nftrule
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.nft import SetRef
    from cni.kernel.nft_fields import Field, Type
    from cni.kernel.rtnl import Message
    from cni.plan.nftrule import AnonymousSet, Chain, NamedSet, Rule, Table

FAMILIES = {"inet": nft.NFPROTO_INET, "ip": nft.NFPROTO_IPV4, "bridge": nft.NFPROTO_BRIDGE, "ip6": nft.NFPROTO_IPV6}
HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
POLICIES = {"drop": 0, "accept": 1}

NFT_MSG_NEWTABLE, NFT_MSG_GETTABLE, NFT_MSG_NEWSET, NFT_MSG_GETSET, NFT_MSG_DELSET = 0, 1, 9, 10, 11
NFTA_TABLE_FLAGS = 2
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS, NFTA_SET_KEY_TYPE, NFTA_SET_KEY_LEN = 1, 2, 3, 4, 5
NFTA_SET_DATA_TYPE, NFTA_SET_DATA_LEN, NFTA_SET_DESC, NFTA_SET_ID, NFTA_SET_USERDATA = 6, 7, 9, 10, 13
NFTA_SET_DESC_SIZE, NFTA_SET_DESC_CONCAT, NFTA_SET_FIELD_LEN = 1, 2, 1
NFTA_LIST_SET_ID, NFTA_ELEM_FLAGS, NFTA_LOOKUP_SET, NFTA_LOOKUP_SET_ID = 4, 3, 1, 4
NFT_SET_ANONYMOUS, NFT_SET_CONSTANT, NFT_SET_INTERVAL, NFT_SET_MAP, NFT_SET_CONCAT = 1, 2, 4, 8, 128
NFT_SET_ELEM_INTERVAL_END = 1
NFT_DATA_VERDICT, VERDICT_BYTES = 0xFFFFFF00, 16
# The modules of statements and of fields, by the record's name or the first word; others are in nf_tables.
NAT_MODULE = "nft_chain_nat"
MODULES = {
    "Masq": "nft_masq",
    "Dnat": "nft_nat",
    "Limit": "nft_limit",
    "Log": "nft_log",
    "Reject": "nft_reject_inet",
    "fib": "nft_fib_inet",
    "ct": "nft_ct",
}
AT_A_TIME = 1000  # elements in one message: the length of a list has 16 bits, and an element takes up to 44 bytes
ANONYMOUS = "__set%d"  # the kernel counts them
# What nft remembers of a set (libnftnl, nftnl_udata_set_types): byte orders, host's 1 and network's 2.
UDATA_KEY_ORDER, UDATA_DATA_ORDER, UDATA_KEY_TYPEOF, HOST_ORDER, NETWORK_ORDER = 0, 1, 3, 1, 2
UDATA_ELEMENT_FLAGS, ELEMENT_OPEN = 1, 1  # an interval without an end


class Step(Record):
    """A message of a transaction, and for errors what it is about: an object's place, and the rule or chain there."""

    message: Message
    place: str
    rule: Rule | None = None
    chain: Chain | None = None

    @property
    def title(self) -> str:
        return f"{self.place}: {self.rule.text}" if self.rule is not None else self.place

    @property
    def module(self) -> str:
        """The modules of the kernel that it takes; empty if all of it is in nf_tables."""
        if self.rule is None:
            return NAT_MODULE if self.chain is not None and self.chain.hook and self.chain.hook.kind == "nat" else ""
        keywords = [type(op).__name__ for op in self.rule.statements] + self.rule.text.split()
        return ", ".join([module for word, module in MODULES.items() if word in keywords])


def create(*tables: Table) -> list[Step]:
    """Returns the messages for tables or parts of them: sets, chains, then rules. Chains are flushed first.

    All that is in one transaction has to come from one call: it numbers the sets that the kernel has not named yet.
    Raises KeyError for a field or symbol that cni.kernel.nft_fields does not know.
    """
    builder = _Builder()
    for table in tables:
        builder.add_table(table)
    return builder.steps


def add_table(family: int, name: str) -> Message:
    payload = text(NFTA_TABLE_NAME, name) + be32(NFTA_TABLE_FLAGS, 0)
    return message(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_ACK, family, payload)


def replace(table: Table) -> list[Step]:
    """Returns the messages that delete a table with all that is in it, if it is there, and recreate it."""
    family = FAMILIES[table.family]
    title = f"table {table.title}"
    removal = [Step(add_table(family, table.name), title), Step(delete_table(family, table.name), title)]
    return removal + (create(table) if table.chains or table.sets else [])


def flush_chain(family: int, table: str, chain: str) -> Message:
    payload = text(nft.NFTA_RULE_TABLE, table) + text(nft.NFTA_RULE_CHAIN, chain)
    return message(NFT_MSG_DELRULE, NLM_F_ACK, family, payload)


def add_chain(family: int, table: str, chain: Chain) -> Message:
    payload = text(nft.NFTA_CHAIN_TABLE, table) + text(nft.NFTA_CHAIN_NAME, chain.name)
    if chain.hook is not None:
        number = be32(nft.NFTA_HOOK_HOOKNUM, HOOKS[chain.hook.hook])
        priority = be32(NFTA_HOOK_PRIORITY, chain.hook.priority & 0xFFFFFFFF)
        payload += nest(nft.NFTA_CHAIN_HOOK, number, priority, flag=NLA_F_NESTED)
        payload += be32(nft.NFTA_CHAIN_POLICY, POLICIES[chain.hook.policy]) + text(NFTA_CHAIN_TYPE, chain.hook.kind)
    return message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, family, payload)


def add_intervals(set_ref: SetRef, spans: Iterable[tuple[bytes, bytes]]) -> list[Message]:
    """Adds all keys from the first to the last of each span to an interval set, which is empty. Spans may overlap."""
    elements = _interval_elements(spans)
    flags = NLM_F_CREATE | NLM_F_ACK
    return [
        message(
            nft.NFT_MSG_NEWSETELEM, flags, set_ref.family, _element_list(set_ref, elements[start : start + AT_A_TIME])
        )
        for start in range(0, len(elements), AT_A_TIME)
    ]


def get_table(family: int, name: str) -> Message:
    return message(NFT_MSG_GETTABLE, 0, family, text(NFTA_TABLE_NAME, name))


def get_set(set_ref: SetRef) -> Message:
    payload = text(NFTA_SET_TABLE, set_ref.table) + text(NFTA_SET_NAME, set_ref.name)
    return message(NFT_MSG_GETSET, 0, set_ref.family, payload)


def sets_of(family: int, table: str) -> tuple[int, bytes]:
    """Returns a dump of the sets of a table, anonymous ones included."""
    kind, _, payload = message(NFT_MSG_GETSET, 0, family, text(NFTA_SET_TABLE, table))
    return kind, payload


def delete_set(set_ref: SetRef) -> Message:
    payload = text(NFTA_SET_TABLE, set_ref.table) + text(NFTA_SET_NAME, set_ref.name)
    return message(NFT_MSG_DELSET, NLM_F_ACK, set_ref.family, payload)


def add_set(set_ref: SetRef, named: NamedSet, set_id: int) -> Message:
    keys = types_read(fields_of(named.key)) if named.by_fields else types_of(named.key)
    flags = (NFT_SET_MAP if named.data else 0) | (NFT_SET_INTERVAL if named.interval else 0)
    data = b""
    orders = [(UDATA_KEY_ORDER, _order(keys))]
    if named.data == "verdict":
        data = be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT) + be32(NFTA_SET_DATA_LEN, VERDICT_BYTES)
    elif named.data:
        values = types_of(named.data)
        data = be32(NFTA_SET_DATA_TYPE, number_of(values)) + be32(NFTA_SET_DATA_LEN, _length(values))
    if named.data:
        orders.append((UDATA_DATA_ORDER, 0 if named.data == "verdict" else _order(types_of(named.data))))
    if len(keys) > 1 and named.interval:
        flags |= NFT_SET_CONCAT
    memory = remembered(fields_of(named.key)) if named.by_fields else b""
    return _new_set(set_ref, keys, flags, data, orders, set_id, size=0, memory=memory)


def _new_set(
    set_ref: SetRef,
    keys: list[Type],
    flags: int,
    data: bytes,
    orders: list[tuple[int, int]],
    set_id: int,
    size: int,
    memory: bytes = b"",
) -> Message:
    names = text(NFTA_SET_TABLE, set_ref.table) + text(NFTA_SET_NAME, set_ref.name)
    key = be32(NFTA_SET_KEY_TYPE, number_of(keys)) + be32(NFTA_SET_KEY_LEN, _length(keys))
    described = be32(NFTA_SET_DESC_SIZE, size) if size else b""
    if flags & NFT_SET_CONCAT:
        lengths = [nest(nft.NFTA_LIST_ELEM, be32(NFTA_SET_FIELD_LEN, kind.length), flag=NLA_F_NESTED) for kind in keys]
        described += nest(NFTA_SET_DESC_CONCAT, *lengths, flag=NLA_F_NESTED)
    desc = nest(NFTA_SET_DESC, described, flag=NLA_F_NESTED) if described else b""
    udata = b"".join([bytes([kind, U32.size]) + U32.pack(order) for kind, order in orders])
    udata += bytes([UDATA_KEY_TYPEOF, len(memory)]) + memory if memory else b""
    payload = names + be32(NFTA_SET_FLAGS, flags) + key + data + desc + be32(NFTA_SET_ID, set_id)
    payload += attribute(NFTA_SET_USERDATA, udata)
    return message(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_ACK, set_ref.family, payload)


def _length(types: list[Type]) -> int:
    """Returns the bytes of a key: the parts of a concatenation fill whole registers of four bytes."""
    return types[0].length if len(types) == 1 else sum([(kind.length + 3) & ~3 for kind in types])


def _order(types: list[Type]) -> int:
    if len(types) > 1:
        return 0
    return HOST_ORDER if types[0].native or types[0] is TYPES["ifname"] else NETWORK_ORDER


def _element_list(set_ref: SetRef, elements: list[bytes], set_id: int = 0) -> bytes:
    names = text(nft.NFTA_LIST_TABLE, set_ref.table) + text(nft.NFTA_LIST_SET, set_ref.name)
    identity = be32(NFTA_LIST_SET_ID, set_id) if set_id else b""
    listed = [nest(nft.NFTA_LIST_ELEM, element, flag=NLA_F_NESTED) for element in elements]
    return names + identity + nest(nft.NFTA_LIST_ELEMENTS, *listed, flag=NLA_F_NESTED)


def _key(data: bytes) -> bytes:
    return nest(nft.NFTA_ELEM_KEY, attribute(nft.NFTA_DATA_VALUE, data), flag=NLA_F_NESTED)


def _interval_elements(spans: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Returns the elements of an interval set: where each span begins, and behind its last key an end. Before the first
    one there is an end, too, as nft has it.
    """
    spans = list(spans)
    size = len(spans[0][0]) if spans else 0
    ending = be32(NFTA_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END)
    merged = nftrule.merged([(int.from_bytes(first, "big"), int.from_bytes(last, "big")) for first, last in spans])
    elements = [_key(bytes(size)) + ending] if merged and merged[0][0] else []
    for first, last in merged:
        begin = _key(first.to_bytes(size, "big"))
        if last + 1 >> size * 8:
            elements.append(begin + attribute(nft.NFTA_ELEM_USERDATA, _OPEN))
        else:
            elements += [begin, _key((last + 1).to_bytes(size, "big")) + ending]
    return elements


_OPEN = bytes([UDATA_ELEMENT_FLAGS, U32.size]) + U32.pack(ELEMENT_OPEN)


class _Builder:
    """The steps that create tables; sets that the kernel has not named yet are known by numbers."""

    def __init__(self) -> None:
        self._family, self._name, self._sets = 0, "", 0
        self.steps: list[Step] = []

    def add_table(self, table: Table) -> None:
        self._family, self._name = FAMILIES[table.family], table.name
        self._add(add_table(self._family, table.name), f"table {table.title}")
        for named in table.sets:
            self._sets += 1
            set_ref = nft.SetRef(self._family, table.name, named.name)
            self._add(add_set(set_ref, named, self._sets), f"{named.kind} {table.title} {named.name}")
        for chain in table.chains:
            added = add_chain(self._family, table.name, chain)
            self._add(added, f"chain {table.title} {chain.name}", chain=chain)
        for chain in table.chains:
            title = f"chain {table.title} {chain.name}"
            self._add(flush_chain(self._family, table.name, chain.name), title)
            for rule in chain.rules:
                self._add_rule(chain.name, rule, title)

    def _add(self, sent: Message, place: str, rule: Rule | None = None, chain: Chain | None = None) -> None:
        self.steps.append(Step(sent, place, rule, chain))

    def _add_rule(self, chain: str, rule: Rule, title: str) -> None:
        def anonymous(fields: list[Field], elements: AnonymousSet) -> bytes:
            return self._add_anonymous(fields, elements, title, rule)

        encoder = RuleEncoder(self._family, anonymous)
        for statement in rule.statements:
            encoder.add(statement)
        payload = text(nft.NFTA_RULE_TABLE, self._name) + text(nft.NFTA_RULE_CHAIN, chain)
        payload += nest(NFTA_RULE_EXPRESSIONS, *encoder.parts, flag=NLA_F_NESTED)
        if rule.comment:
            comment = rule.comment.encode() + b"\0"
            payload += attribute(NFTA_RULE_USERDATA, bytes([nft.UDATA_COMMENT, len(comment)]) + comment)
        flags = NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK
        self._add(message(NFT_MSG_NEWRULE, flags, self._family, payload), title, rule)

    def _add_anonymous(self, fields: list[Field], elements: AnonymousSet, title: str, rule: Rule) -> bytes:
        """Adds the set with its elements; returns the attributes by which a lookup names it."""
        self._sets += 1
        set_ref, types = nft.SetRef(self._family, self._name, ANONYMOUS), [TYPES[field.type] for field in fields]
        flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT
        listed, size = [], len(elements.elements)
        if len(fields) > 1:
            listed = [_key(concatenated(fields, parts)) for parts in elements.elements]
        else:
            spans = [interval_of(fields[0], element) for element in elements.elements]
            if any(first != last for first, last in spans):
                flags |= NFT_SET_INTERVAL
                listed = _interval_elements(spans)
                size = len(listed) + sum([_OPEN in element for element in listed])
            else:
                listed = [_key(first) for first, _ in dict.fromkeys(spans)]
        orders = [(UDATA_KEY_ORDER, _order(types))]
        self._add(_new_set(set_ref, types, flags, b"", orders, self._sets, size), title, rule)
        payload = _element_list(set_ref, listed, self._sets)
        self._add(message(nft.NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_ACK, self._family, payload), title, rule)
        return text(NFTA_LOOKUP_SET, ANONYMOUS) + be32(NFTA_LOOKUP_SET_ID, self._sets)
