"""The table of NetworkPolicy as the kernel has it, in the terms of the desired one.

What follows from a name or a digest is not compared any further: a set or a rule that has the desired one's is it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.basetable import PENDING
from cni.agent.policy.desired import DesiredTable
from cni.kernel import nft, nft_keys, nft_ruleset
from cni.kernel.netlink import NetlinkError, attributes
from cni.kernel.nft_rules import NFTA_CHAIN_TYPE, NFTA_HOOK_PRIORITY, NFTA_RULE_USERDATA
from cni.plan.nftrule import DROP, NamedSet, Rule
from cni.plan.policy import TABLE, new_map
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from cni.agent.policy.blocks import Span
    from cni.kernel.netlink import Netlink
    from cni.kernel.rtnl import Message
    from cni.plan.nftrule import Chain, Table

FAMILY = nft.NFPROTO_INET
OTHERS = (Rule((DROP,), "rules of others"),)  # stands for those that are not the desired ones
FOREIGN = "verdict of others"
KIND = (
    nft_ruleset.NFTA_SET_FLAGS,
    nft_ruleset.NFTA_SET_KEY_TYPE,
    nft_ruleset.NFTA_SET_KEY_LEN,
    nft_ruleset.NFTA_SET_DATA_TYPE,
)


class Expected(Record):
    """The table to compare with, its chains as they are sent, and the pending addresses that the agent has heard of:
    those without a class, and those that have one in the maps of new pods.
    """

    desired: DesiredTable
    chains: dict[str, Chain]
    pending: Container[bytes] = ()
    judged: Container[bytes] = ()


def read_table(netfilter: Netlink, base: Table, wanted: Expected) -> DesiredTable | str:
    """Returns the table, or why it has to be recreated. Raises NetlinkError, Interrupted, OSError."""
    (table,) = netfilter.ask_each([nft_ruleset.get_table(FAMILY, TABLE)])
    if isinstance(table, NetlinkError):
        if table.errno in nft.NOT_FOUND_OR_EINVAL:
            return "it was missing"
        raise table
    if any(attributes(table, nft.NFGENMSG.size).get(nft_ruleset.NFTA_TABLE_FLAGS, b"")):
        return "it was dormant"
    actual = DesiredTable([], [], [])
    error = _read_sets(netfilter, base, wanted, actual) or _read_chains(netfilter, base, wanted, actual)
    return error or _read_contents(netfilter, wanted, actual) or actual


def _read_sets(netfilter: Netlink, base: Table, wanted: Expected, actual: DesiredTable) -> str:
    """Each of these reads a part of the table, and returns why it has to be recreated; empty if it need not."""
    sets = _sets(netfilter)
    desired = wanted.desired
    own = {named.name for named in base.sets}
    for named in (*base.sets, *desired.sets.values()):
        if (named.name in own or named.name in sets) and sets.get(named.name) != _kind_of_set(named):
            return f"{named.kind} {named.name} was missing or another"
    actual.sets = {name: desired.sets.get(name, NamedSet(name, "")) for name in sets if name not in own}
    return ""


def _read_chains(netfilter: Netlink, base: Table, wanted: Expected, actual: DesiredTable) -> str:
    chains, rules = _chains(netfilter), _rules(netfilter)
    for chain in wanted.chains.values():
        if chain.name in chains and chains[chain.name] != _hook_of(chain):
            return f"chain {chain.name} had another hook"
    actual.chains = {name: _actual_rules(name, rules.get(name, []), wanted) for name in chains}
    for chain in base.chains:
        if chain.name not in wanted.desired.chains and actual.chains.pop(chain.name, OTHERS) == OTHERS:
            return f"chain {chain.name} was missing or had other rules"
    return ""


def _read_contents(netfilter: Netlink, wanted: Expected, actual: DesiredTable) -> str:
    desired = wanted.desired
    for name in desired.elements:
        actual.elements[name] = {key for answer in _answers(netfilter, name) for key in nft_keys.parse_keys(answer)}
    for name, spans in desired.spans.items():
        bounds = {bound for answer in _answers(netfilter, name) for bound in nft_keys.parse_bounds(answer)}
        if name in actual.sets and bounds != _bounds_of(name, spans):
            return f"set {name} had other networks"
    for name in desired.verdicts:
        elements = [element for answer in _answers(netfilter, name) for element in nft.each_element(answer)]
        actual.verdicts[name] = {element.key: element.chain if element.leaves else FOREIGN for element in elements}
    for name in [name for name in desired.verdicts if new_map(name) in desired.verdicts]:
        _leave_unheard(name, wanted, actual)
    return ""


def _leave_unheard(name: str, wanted: Expected, actual: DesiredTable) -> None:
    """Makes pending addresses of which the agent has not heard yet agree in a map, so that nothing opens them: those
    new to it, and those that an ADD has given to another pod, which removes the class of the one before.
    """
    early, judged = new_map(name), actual.verdicts[new_map(name)]
    unheard = [
        key
        for key, chain in actual.verdicts[name].items()
        if chain in PENDING.values() and key not in wanted.pending and not (key in wanted.judged and key in judged)
    ]
    for key in unheard:
        del actual.verdicts[name][key]
        for map_name in [map_name for map_name in (name, early) if key in wanted.desired.verdicts[map_name]]:
            actual.verdicts[map_name].setdefault(key, wanted.desired.verdicts[map_name][key])


def _answers(netfilter: Netlink, name: str) -> list[bytes]:
    """Returns the elements of a set; none if there is no such set."""
    try:
        return netfilter.dump(*nft.all_elements(nft.SetRef(FAMILY, TABLE, name)))
    except NetlinkError as error:
        if error.errno not in nft.NOT_FOUND:
            raise
        return []


def _bounds_of(name: str, spans: Iterable[Span]) -> set[tuple[bytes, bool]]:
    messages = nft_ruleset.add_intervals(nft.SetRef(FAMILY, TABLE, name), spans)
    return {bound for _, _, payload in messages for bound in nft_keys.parse_bounds(payload)}


def _sets(netfilter: Netlink) -> dict[str, list[int]]:
    """Returns by name what kind of set each is, but for the anonymous ones of rules."""
    kinds = {}
    for answer in netfilter.dump(*nft_ruleset.sets_of(FAMILY, TABLE)):
        attrs = attributes(answer, nft.NFGENMSG.size)
        kind = _kind(answer)
        if not kind[0] & nft_ruleset.NFT_SET_ANONYMOUS:
            kinds[nft.name_of(attrs.get(nft_ruleset.NFTA_SET_NAME))] = kind
    return kinds


def _kind_of_set(named: NamedSet) -> list[int]:
    return _kind(_payload(nft_ruleset.add_set(nft.SetRef(FAMILY, TABLE, named.name), named, 1)))


def _kind(data: bytes) -> list[int]:
    """Returns flags, types and length, each 0 where it is not said."""
    attrs = attributes(data, nft.NFGENMSG.size)
    return [int.from_bytes(attrs.get(kind, b""), "big") for kind in KIND]


def _chains(netfilter: Netlink) -> dict[str, tuple[bytes, ...]]:
    """Returns the hooks of the table's chains by name; empty where a chain has none."""
    hooks = {}
    for answer in netfilter.dump(*nft.all_chains()):
        chain = nft.parse_chain(answer)
        if (chain.family, chain.table) == (FAMILY, TABLE):
            hooks[chain.name] = _hook(answer)
    return hooks


def _hook_of(chain: Chain) -> tuple[bytes, ...]:
    return () if chain.hook is None else _hook(_payload(nft_ruleset.add_chain(FAMILY, TABLE, chain)))


def _hook(data: bytes) -> tuple[bytes, ...]:
    attrs = attributes(data, nft.NFGENMSG.size)
    hook = attributes(attrs.get(nft.NFTA_CHAIN_HOOK, b""))
    parts = hook.get(nft.NFTA_HOOK_HOOKNUM), hook.get(NFTA_HOOK_PRIORITY), attrs.get(nft.NFTA_CHAIN_POLICY)
    return tuple([part or b"" for part in (*parts, attrs.get(NFTA_CHAIN_TYPE))]) if hook else ()


def _payload(message: Message) -> bytes:
    return message[2]


def _rules(netfilter: Netlink) -> dict[str, list[str]]:
    """Returns the comments of the rules by chain, in their order."""
    comments_by_chain: dict[str, list[str]] = {}
    for answer in netfilter.dump(*nft.rules_of(FAMILY, TABLE)):
        attrs = attributes(answer, nft.NFGENMSG.size)
        comments = comments_by_chain.setdefault(nft.name_of(attrs.get(nft.NFTA_RULE_CHAIN)), [])
        comments.append(nft.comment_of(attrs.get(NFTA_RULE_USERDATA, b"")))
    return comments_by_chain


def _actual_rules(name: str, comments: list[str], wanted: Expected) -> tuple[Rule, ...]:
    """Returns the desired rules of a chain if these are they."""
    chain = wanted.chains.get(name)
    if chain is None or comments != [rule.comment for rule in chain.rules]:
        return OTHERS
    return wanted.desired.chains.get(name, chain.rules)
