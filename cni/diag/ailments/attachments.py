"""Attachments that are no longer as ADD made them, and those that nobody has detached."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cni import IPAM, kind_of
from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.settings import unforwarded
from cni.diag.check import HOST_ROUTE, compared
from cni.diag.node.attachments import GONE, PRESENT
from cni.diag.node.pools import YOUNG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView
    from cni.diag.check import Compared

SHOWN = 3  # names in a sentence
CONSEQUENCE = "traffic of these containers is dropped, keeps an address that nobody answers, or is not limited"

UNPAIRED = " is gone from the container"  # the end of a difference of cni.effects.veth
SENTENCES = {  # consequence, remedy and proof of each finding
    "attachment-changed": (CONSEQUENCE, "podwire repair", "podwire check"),
    "route-diverted": (
        "the node does not reach these containers, nor does what comes by it: host ports, other nodes, replies",
        "remove that route, rule or address",
        "podwire check; ip route show table all; ip rule",
    ),
    "not-examined": (
        "changes of these attachments are not noticed",
        "run it as root in the host's namespaces; recreate a pod whose network namespace is gone",
        "podwire check",
    ),
}


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields one ailment for all attachments that have lost their interface, one for those that differ, that the host
    does not reach, or that cannot be compared, and one for those that are gone.
    """
    lost: list[str] = []
    holders: dict[str, dict[str, list[str]]] = {name: {} for name in SENTENCES}  # by finding and evidence
    # An ailment of its own, for which no attachment is to be repaired.
    named = tuple([f"the host does not forward IPv{family} " for family in unforwarded(node)])
    for attached in node.attached:
        effects = compared(attached) if attached.interface == PRESENT else []
        if any(each.difference.endswith(UNPAIRED) for each in effects):  # all other differences follow from it
            lost.append(attached.name)
            continue
        for each in effects:
            name = "" if each.difference.startswith(named) else _finding_of(each)
            if name:
                holders[name].setdefault(each.difference or each.error, []).append(attached.name)
    if lost:
        evidence = "the interface is gone from the container: removed, renamed, or moved"
        yield Ailment("attachment-changed", some(lost), evidence, CONSEQUENCE, "recreate the pod", "podwire check")
    for name, (consequence, remedy, proof) in SENTENCES.items():
        evidences = holders[name]
        if evidences:
            names = list(dict.fromkeys([each for names in evidences.values() for each in names]))
            yield Ailment(name, some(names), some(list(evidences)), consequence, remedy, proof)
    yield from _gone(node)


def _finding_of(effect: Compared) -> str:
    """Returns the name of the finding about an effect; empty if it holds. Leases are those of pools."""
    if kind_of(effect.plugin) == IPAM or not (effect.difference or effect.error):
        return ""
    if effect.error:
        return "not-examined"
    return "route-diverted" if effect.plugin == HOST_ROUTE else "attachment-changed"


def _gone(node: NodeView) -> Iterator[Ailment]:
    """Yields attachments without a host interface: those of pods that live, and those that nobody has detached."""
    old = time.time() - YOUNG_SECONDS
    gone = [each for each in node.attached if each.interface == GONE and 0 < each.since < old]
    living = [each.name for each in gone if each.netns and os.path.lexists(each.netns)]
    left = [each.name for each in gone if each.name not in living]
    if living:
        evidence = "the host interface is gone, and the network namespace is there"
        remedy = "recreate the pod"
        yield Ailment("attachment-gone", some(living), evidence, "these pods reach nothing", remedy, "podwire ps")
    if left:
        yield Ailment(
            "attachment-gone",
            some(left),
            "the host interface is gone, and DEL was never called",
            "addresses and host ports stay taken",
            "podwire gc, and the container runtime's own cleanup",
            "podwire ps",
        )


def some(names: list[str]) -> str:
    """Returns the first names and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
