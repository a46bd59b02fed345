"""Comparison of a place in the kernel's table of policies with the desired one: where an address leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.dataplane.policy_table import FAMILY, TITLE, marked
from cni.agent.policy.basetable import NOT_ISOLATED, PENDING
from cni.kernel import nft, nft_ruleset
from cni.kernel.netlink import NetlinkError, attributes
from cni.kernel.nft_rules import NFTA_RULE_USERDATA
from cni.plan.policy import TABLE, new_map
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni.agent.policy.explain import Element
    from cni.kernel.netlink import Netlink
    from cni.plan.nftrule import Rule

CHAINS_COMPARED = 64  # each is a dump
NOWHERE = "no chain"


class Comparison(Record):
    """`chain`: where the kernel leads an address, empty if it is not in the map; `difference`: empty if it agrees."""

    chain: str
    difference: str


def compare(
    netfilter: Netlink, wanted: Element, names: Sequence[str], chains: Mapping[str, tuple[Rule, ...]]
) -> Comparison:
    """Compares an element, and the chains of these names with the desired ones, of which there may be more.

    Raises NetlinkError, OperationFailed, OSError.
    """
    element = nft.Element(wanted.address.packed, "", "")
    places = [nft.SetRef(FAMILY, TABLE, name) for name in (wanted.map_name, new_map(wanted.map_name))]
    table, *answers = netfilter.ask_each(
        [nft_ruleset.get_table(FAMILY, TABLE), *[nft.get_element(place, element) for place in places]]
    )
    if isinstance(table, NetlinkError):
        _raise_unless_missing(table)
        return Comparison("", f"table {TITLE} is missing")
    chain, early = map(_chain_of, answers)
    if chain in PENDING.values() and early:  # a new pod
        chain = "" if early in NOT_ISOLATED.values() else early
    if chain != wanted.chain:
        return Comparison(
            chain, f"{wanted.address.text} leads to {chain or NOWHERE}, expected: {wanted.chain or NOWHERE}"
        )
    differing = [name for name in names[:CHAINS_COMPARED] if not _is_as_desired(netfilter, name, chains.get(name))]
    return Comparison(chain, f"chain {', '.join(differing)} has other rules" if differing else "")


def _chain_of(answer: bytes | NetlinkError) -> str:
    """Returns where an element leads; empty if there is none."""
    if isinstance(answer, NetlinkError):
        _raise_unless_missing(answer)
        return ""
    elements = nft.parse_elements(answer)
    return elements[0].chain if elements else ""


def _raise_unless_missing(error: NetlinkError) -> None:
    if error.errno not in nft.NOT_FOUND_OR_EINVAL:
        raise error


def _is_as_desired(netfilter: Netlink, name: str, rules: tuple[Rule, ...] | None) -> bool:
    """Compares the digests of the rules, as an audit of the table does."""
    answers = netfilter.dump(*nft.rules_of(FAMILY, TABLE, name))
    attrs = [attributes(answer, nft.NFGENMSG.size) for answer in answers]
    comments = [nft.comment_of(rule.get(NFTA_RULE_USERDATA, b"")) for rule in attrs]
    return rules is not None and comments == [rule.comment for rule in marked(name, rules).rules]
