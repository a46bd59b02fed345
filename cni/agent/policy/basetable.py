"""The part of the table that no policy changes: hooks, the maps from addresses to classes, and where classes end.

A packet of a known connection leaves after one rule. Of a first packet the source is looked up, then the destination.
The class of a pod that NetworkPolicies select ends in `isolated`; egress that is allowed goes on to `to-pod`, which
ends in `accept`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.classes import denial_chain, isolation_chain
from cni.agent.policy.compiler import ADDRESS_TYPES, HEADERS, TO_POD, allowing, suffix
from cni.agent.policy.desired import DesiredTable
from cni.agent.policy.objects import DIRECTIONS
from cni.plan.nftrule import (
    ACCEPT,
    DROP,
    FILTER,
    AnonymousSet,
    Chain,
    Counter,
    Hook,
    Limit,
    Log,
    Lookup,
    Match,
    NamedSet,
    Range,
    Reject,
    Rule,
    SetLabel,
    Table,
    Verdict,
    VerdictMap,
)
from cni.plan.policy import IN, OUT, TABLE, map_name, new_map_name, pending_chain
from cni.protocol.address import parse_net
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

BYWAYS = "byways"
PENDING = {suffix: pending_chain(suffix) for suffix in (IN, OUT)}
NOT_ISOLATED = {OUT: "to-pod", IN: "accepted"}  # chains of new pods that no policy concerns
REVOKED = 77  # a label of connections that are no longer allowed
LOG_GROUP = 77
LOGS_A_SECOND = 10
NEIGHBOUR_DISCOVERY = Range(133, 137)  # RFC 4861
LINK_LOCAL = parse_net("fe80::/10")
FROM_NODE = Match("fib saddr type", "local")
IPVS_LINK = "kube-ipvs0"
BEHIND_IPVS = 110  # at the hook input IPVS takes packets for services at 98 and 99, and sends them by the hook output
LABELLING = Rule((SetLabel(REVOKED),))  # the kernel gives connections labels while there is such a rule
LOGGING = Rule((Limit(LOGS_A_SECOND), Log(LOG_GROUP)))  # the kernel refuses it without nfnetlink_log


class TableOptions(Record):
    """`families` of the node's pods. `log` and `revoke`: the kernel has nfnetlink_log, and labels of connections;
    `reject` answers what is denied, `multicast` lets broadcasts and multicasts of other pods reach an isolated one;
    `open` lets pods through that podwired does not know yet, `opens_node` lets pods through to the node itself.
    `ipvs`: kube-proxy leads services on by IPVS. `checks_sources`: the kernel takes the rules of ipSpoofCheck.
    """

    families: tuple[int, ...] = (4, 6)
    log: bool = True
    revoke: bool = True
    reject: bool = False
    multicast: bool = False
    open: bool = False
    opens_node: bool = False
    ipvs: bool = False
    checks_sources: bool = True


def own_name(family: int) -> str:
    """Returns the name of the set of addresses that NetworkPolicies isolate, or that are pending, each with itself: a
    service may lead a pod to itself.
    """
    return f"own{family}"


def base_table(options: TableOptions) -> Table:
    """Returns the table as it is without any isolated pod."""
    sets = []
    for family in options.families:
        address = ADDRESS_TYPES[family]
        sets += [NamedSet(map_name(way, family), address, "verdict") for way in (OUT, IN)]
        sets += [NamedSet(new_map_name(way, family), address, "verdict") for way in (OUT, IN)]
        sets.append(NamedSet(own_name(family), f"{address} . {address}"))
    chains = [
        Chain("known", (*([_rule(Match("ct label", REVOKED), DROP)] if options.revoke else []), _rule(ACCEPT))),
        Chain(BYWAYS),
        Chain(NOT_ISOLATED[OUT], (*_lookups(options, IN), _rule(ACCEPT))),
        Chain(NOT_ISOLATED[IN], (_rule(ACCEPT),)),
        *[Chain(denial_chain(direction), _denial(options, denial_chain(direction))) for direction in DIRECTIONS],
        *[Chain(isolation_chain(direction), _isolation(options, direction)) for direction in DIRECTIONS],
        *[Chain(PENDING[suffix(direction)], _pending(options, direction)) for direction in DIRECTIONS],
        Chain("forward", _forward(options), Hook("filter", "forward", FILTER)),
    ]
    if not options.opens_node:
        hook = Hook("filter", "input", BEHIND_IPVS if options.ipvs else FILTER)
        chains.append(Chain("input", _first(options) + _lookups(options, OUT), hook))
    if options.ipvs:
        chains.append(Chain("output", (_rule(FROM_NODE, ACCEPT), *_forward(options)), Hook("filter", "output", FILTER)))
    if options.revoke:
        chains.append(Chain("labels", (LABELLING,)))  # never entered
    return Table("inet", TABLE, tuple(sets), tuple(chains))


def empty_table(options: TableOptions) -> DesiredTable:
    """Returns the desired table where no pod is isolated."""
    families = options.families
    maps = [name(way, family) for name in (map_name, new_map_name) for way in (OUT, IN) for family in families]
    return DesiredTable([own_name(family) for family in families], maps, [BYWAYS])


def byways(options: TableOptions) -> tuple[Rule, ...]:
    """Returns the rules that close the ways around addresses on a bridge, while a pod is isolated."""
    link_local = [_rule(Match("ip6 saddr", LINK_LOCAL), DROP)] if 6 in options.families else []
    groups = [] if options.multicast else [_rule(Match("meta pkttype", AnonymousSet(("broadcast", "multicast"))), DROP)]
    return (*link_local, *groups)


def _rule(*statements: Match | Lookup | VerdictMap | Verdict | Counter | Limit | Log | Reject) -> Rule:
    return Rule(statements)


def _first(options: TableOptions) -> tuple[Rule, ...]:
    known = _rule(Match("ct state", "established,related"), Verdict("goto", "known"))
    neighbours = [_rule(Match("icmpv6 type", NEIGHBOUR_DISCOVERY), ACCEPT)] if 6 in options.families else []
    return (known, *neighbours)


def _forward(options: TableOptions) -> tuple[Rule, ...]:
    jump = _rule(Verdict("jump", BYWAYS))
    return (*_first(options), jump, *_lookups(options, OUT), _rule(TO_POD))


def _isolation(options: TableOptions, direction: str) -> tuple[Rule, ...]:
    """Returns the rules for what no NetworkPolicy allows."""
    return (*_own(options, direction), _rule(Verdict("goto", denial_chain(direction))))


def _pending(options: TableOptions, direction: str) -> tuple[Rule, ...]:
    """Returns the rules for addresses without a class, unless podwired has given them one as new pods."""
    judged = _lookups(options, suffix(direction), new_map_name)
    if options.open:
        return (*judged, _rule(allowing(direction)))
    return (*judged, *_own(options, direction), *_denial(options, PENDING[suffix(direction)]))


def _own(options: TableOptions, direction: str) -> tuple[Rule, ...]:
    """Returns the rules that let a pod reach itself."""
    return tuple(
        [
            _rule(Lookup(f"{HEADERS[family]} saddr . {HEADERS[family]} daddr", own_name(family)), allowing(direction))
            for family in options.families
        ]
    )


def _lookups(options: TableOptions, way: str, name: Callable[[str, int], str] = map_name) -> tuple[Rule, ...]:
    """Returns the rules that lead a pod's address to its class for a direction: the source's or the destination's."""
    end = "saddr" if way == OUT else "daddr"
    return tuple([_rule(VerdictMap(f"{HEADERS[family]} {end}", name(way, family))) for family in options.families])


def _denial(options: TableOptions, name: str) -> tuple[Rule, ...]:
    log = [_rule(Limit(LOGS_A_SECOND), Log(LOG_GROUP, name))] if options.log else []
    answer = Reject("admin-prohibited") if options.reject and name not in PENDING.values() else DROP
    return (_rule(Counter()), *log, _rule(answer))
