"""Comparison of a place in the kernel's table of policies with the desired one: where an address leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.dataplane.policy_table import FAMILY, TITLE, marked
from cni.kernel import nft, nft_ruleset
from cni.kernel.netlink import NetlinkError, attributes
from cni.kernel.nft_rules import NFTA_RULE_USERDATA
from cni.plan.policy import TABLE
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
    set_ref = nft.SetRef(FAMILY, TABLE, wanted.map_name)
    element = nft.Element(wanted.address.packed, "", "")
    table, answer = netfilter.ask_each([nft_ruleset.get_table(FAMILY, TABLE), nft.get_element(set_ref, element)])
    if isinstance(table, NetlinkError):
        _raise_unless_missing(table)
        return Comparison("", f"table {TITLE} is missing")
    if isinstance(answer, NetlinkError):
        _raise_unless_missing(answer)
    found = [] if isinstance(answer, NetlinkError) else nft.parse_elements(answer)
    chain = found[0].chain if found else ""
    if chain != wanted.chain:
        return Comparison(
            chain, f"{wanted.address.text} leads to {chain or NOWHERE}, expected: {wanted.chain or NOWHERE}"
        )
    differing = [name for name in names[:CHAINS_COMPARED] if not _is_as_desired(netfilter, name, chains.get(name))]
    return Comparison(chain, f"chain {', '.join(differing)} has other rules" if differing else "")


def _raise_unless_missing(error: NetlinkError) -> None:
    if error.errno not in nft.NOT_FOUND_OR_EINVAL:
        raise error


def _is_as_desired(netfilter: Netlink, name: str, rules: tuple[Rule, ...] | None) -> bool:
    """Compares the digests of the rules, as an audit of the table does."""
    answers = netfilter.dump(*nft.rules_of(FAMILY, TABLE, name))
    comments = [nft.comment_of(attributes(one, nft.NFGENMSG.size).get(NFTA_RULE_USERDATA, b"")) for one in answers]
    return rules is not None and comments == [rule.comment for rule in marked(name, rules).rules]
