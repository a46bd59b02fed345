"""A kernel's table as the messages of transactions make it: dumps give back what was sent, as the kernel does."""

from __future__ import annotations

from errno import EBUSY, ENOENT
from typing import TYPE_CHECKING, Any

from cni.agent.dataplane.policy_table import STANDBY
from cni.kernel import nft, nft_keys, nft_rules, nft_ruleset
from cni.kernel.conntrack import NFNL_SUBSYS_CTNETLINK
from cni.kernel.netlink import NLA_F_NESTED, NetlinkError, attributes, each_attribute, nest
from cni.plan.policy import TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.rtnl import Message


class PolicyKernel:
    """The table, and the payloads that its standby is made of; stands for the socket. `refusals`: the errors of the
    next transactions.
    """

    def __init__(self) -> None:
        self.table: bytes | None = None
        self.standby: list[bytes] = []
        self.chains: dict[str, bytes] = {}
        self.rules: dict[str, list[bytes]] = {}
        self.sets: dict[str, bytes] = {}
        self.elements: dict[str, dict[tuple[bytes, bool], bytes]] = {}
        self.transactions: list[list[Message]] = []
        self.refusals: list[NetlinkError] = []
        self.connections: list[bytes] = []
        self.connections_error: NetlinkError | None = None
        self.ended: list[Message] = []  # requests to end connections
        self.answer: NetlinkError | None = None  # to the question for the table
        self.set_error: NetlinkError | None = None  # to those for elements

    def ask_each(self, questions: Iterable[Message]) -> list[bytes | NetlinkError]:
        return [
            self._element(payload) if kind & 0xFF == nft.NFT_MSG_GETSETELEM else self._table(payload)
            for kind, _, payload in questions
        ]

    def _table(self, payload: bytes) -> bytes | NetlinkError:
        absent = NetlinkError(ENOENT, "")
        if _table_of(payload) == STANDBY:
            return next(iter(self.standby), absent)
        return self.answer or self.table or absent

    def _element(self, payload: bytes) -> bytes | NetlinkError:
        """Returns the element of a set that a question names by its key."""
        attrs = attributes(payload, nft.NFGENMSG.size)
        [asked] = nft.parse_elements(payload)
        element = self.elements.get(nft.name_of(attrs[nft.NFTA_LIST_SET]), {}).get((asked.key, False))
        if self.set_error or element is None:
            return self.set_error or NetlinkError(ENOENT, "")
        listed = nest(nft.NFTA_LIST_ELEM, element, flag=NLA_F_NESTED)
        return nft.NFGENMSG.pack(1, 0, 0) + nest(nft.NFTA_LIST_ELEMENTS, listed, flag=NLA_F_NESTED)

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        if kind >> 8 == NFNL_SUBSYS_CTNETLINK:
            if self.connections_error:
                raise self.connections_error
            return self.connections
        match kind & 0xFF:
            case nft_ruleset.NFT_MSG_GETSET:
                return [*self.sets.values()]
            case nft.NFT_MSG_GETCHAIN:
                return [*self.chains.values(), nft_rules.add_chain(nft.Chain(nft.NFPROTO_IPV4, "filter", "FORWARD"))[2]]
            case nft.NFT_MSG_GETRULE:
                named = attributes(payload, nft.NFGENMSG.size).get(nft.NFTA_RULE_CHAIN)
                chains = self.rules if named is None else [nft.name_of(named)]
                return [rule for chain in chains for rule in self.rules.get(chain, [])]
            case _:
                return self._elements_of(payload)

    def parts(self, kind: int, payload: bytes) -> list[tuple[int, bytes]]:
        return [*[(0, answer) for answer in self.dump(kind, payload)], (0, b"")]

    def request(self, *message: Any) -> None:
        self.ended.append(message)

    def _elements_of(self, payload: bytes) -> list[bytes]:
        attrs = attributes(payload, nft.NFGENMSG.size)
        name = nft.name_of(attrs[nft.NFTA_LIST_SET])
        if self.set_error or name not in self.sets:
            raise self.set_error or NetlinkError(ENOENT, "")
        listed = [nest(nft.NFTA_LIST_ELEM, element, flag=NLA_F_NESTED) for element in self.elements[name].values()]
        return [nft.NFGENMSG.pack(1, 0, 0) + nest(nft.NFTA_LIST_ELEMENTS, *listed, flag=NLA_F_NESTED)]

    def batch(self, messages: list[Message]) -> NetlinkError | None:
        if self.refusals:
            return self.refusals.pop(0)
        self.transactions.append(messages[1:-1])
        for position, message in enumerate(messages[1:-1], 1):
            if error := self._take_standby(message) if _table_of(message[2]) == STANDBY else self._take(message):
                return NetlinkError(error, "", position)
        return None

    def _take_standby(self, message: Message) -> int:
        kind, _, payload = message
        self.standby = [] if kind & 0xFF == nft.NFT_MSG_DELTABLE else [*self.standby, payload]
        return 0

    def _take(self, message: Message) -> int:
        kind, _, payload = message
        attrs = attributes(payload, nft.NFGENMSG.size)
        assert nft.name_of(attrs[1]) == TABLE
        match kind & 0xFF:
            case nft_ruleset.NFT_MSG_NEWTABLE:
                self.table = self.table or payload
            case nft.NFT_MSG_DELTABLE:
                self.flush()
            case nft_rules.NFT_MSG_NEWCHAIN:
                self.chains.setdefault(nft.name_of(attrs[nft.NFTA_CHAIN_NAME]), payload)
            case nft_rules.NFT_MSG_DELCHAIN:
                name = nft.name_of(attrs[nft.NFTA_CHAIN_NAME])
                if self.rules.get(name):
                    return EBUSY
                del self.chains[name]
            case nft_rules.NFT_MSG_NEWRULE:
                self.rules.setdefault(nft.name_of(attrs[nft.NFTA_RULE_CHAIN]), []).append(payload)
            case nft_rules.NFT_MSG_DELRULE:
                self.rules[nft.name_of(attrs[nft.NFTA_RULE_CHAIN])] = []
            case nft_ruleset.NFT_MSG_NEWSET:
                name = nft.name_of(attrs[nft_ruleset.NFTA_SET_NAME])
                self.sets[name] = payload
                self.elements.setdefault(name, {})
            case nft_ruleset.NFT_MSG_DELSET:
                del self.sets[nft.name_of(attrs[nft_ruleset.NFTA_SET_NAME])]
            case other:
                return self._take_elements(other, payload)
        return 0

    def _take_elements(self, kind: int, payload: bytes) -> int:
        attrs = attributes(payload, nft.NFGENMSG.size)
        name = nft.name_of(attrs[nft.NFTA_LIST_SET])
        if name not in self.sets:
            return ENOENT
        listed = each_attribute(attrs[nft.NFTA_LIST_ELEMENTS])
        for bound, (_, element) in zip(nft_keys.parse_bounds(payload), listed, strict=True):
            if kind == nft.NFT_MSG_NEWSETELEM:
                held = self.elements[name].get(bound)
                if held is not None and _chain_of(held) != _chain_of(element):
                    return EBUSY
                self.elements[name][bound] = element
            elif self.elements[name].pop(bound, None) is None:
                return ENOENT
        return 0

    def flush(self) -> None:
        """Deletes the table with all that is in it."""
        self.table = None
        for held in (self.chains, self.rules, self.sets, self.elements):
            held.clear()


def _chain_of(element: bytes) -> str:
    """Returns the chain to which an element leads; empty if to none."""
    listed = nest(nft.NFTA_LIST_ELEMENTS, nest(nft.NFTA_LIST_ELEM, element))
    return "".join([parsed.chain for parsed in nft.each_element(nft.NFGENMSG.pack(1, 0, 0) + listed)])


def _table_of(payload: bytes) -> str:
    return nft.name_of(attributes(payload, nft.NFGENMSG.size)[1])
