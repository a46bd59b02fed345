"""Counters of packets, read from the kernel's table of policies when somebody asks for metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cni.agent.dataplane.policy_table import FAMILY
from cni.agent.kept import Kept
from cni.agent.policy.basetable import PENDING
from cni.agent.policy.classes import rule_of
from cni.agent.policy.denials import DENIED, DIRECTIONS
from cni.kernel import nft
from cni.kernel.netlink import NETLINK_NETFILTER, Interrupted, Netlink, NetlinkError
from cni.kernel.nft_rules import parse_rule
from cni.plan.policy import TABLE
from cni.protocol.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.metrics import Metrics

Counts = dict[tuple[str, ...], int]


def add_counters(metrics: Metrics, *, of_rules: bool) -> None:
    """Lets the metrics read these counters."""
    metrics.count_denied(denied_packets)
    if of_rules:
        metrics.count_rules(Kept(rule_packets))  # by the thread that answers probes


def denied_packets() -> Counts:
    """Returns the number of denied packets by direction, since the table was made."""
    return _asked(_denied)


def rule_packets() -> Counts:
    """Returns the number of packets that matched, by policy, direction, and number of the rule, since the rule's chain
    was made. Established connections pass before: these are first packets. The whole table is read.
    """
    return _asked(_matched)


def _asked(read: Callable[[Netlink], Counts]) -> Counts:
    """Returns nothing while the kernel does not tell. By a socket of its own: another thread calls this."""
    try:
        netfilter = Netlink(NETLINK_NETFILTER)
    except OSError:
        return {}
    try:
        return read(netfilter)
    except (NetlinkError, Interrupted, OperationFailed, OSError):
        return {}
    finally:
        netfilter.close()


def _denied(netfilter: Netlink) -> Counts:
    return {(direction.lower(),): _packets(netfilter, suffix) for suffix, direction in DIRECTIONS.items()}


def _packets(netfilter: Netlink, suffix: str) -> int:
    rules = [
        parse_rule(rule)
        for chain in (DENIED[suffix], PENDING[suffix])
        for rule in netfilter.dump(*nft.rules_of(FAMILY, TABLE, chain))
    ]
    return sum([rule.packets for rule in rules])


def _matched(netfilter: Netlink) -> Counts:
    """A rule of a policy is a rule of the table for each of its peers, protocols and families."""
    counts = Counter[tuple[str, ...]]()
    for rule in map(parse_rule, netfilter.dump(*nft.rules_of(FAMILY, TABLE))):
        labels = rule_of(rule.chain, rule.comment)
        if labels is not None:
            counts[labels] += rule.packets
    return dict(counts)
