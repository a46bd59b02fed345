"""Attachments that are no longer as ADD made them, and those that nobody has detached."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni import IPAM, kind_of
from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.settings import unforwarded
from cni.diag.check import compared
from cni.diag.node.attachments import GONE, PRESENT
from cni.diag.node.pools import YOUNG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

SHOWN = 3  # names in a sentence
CONSEQUENCE = "traffic of these containers is dropped, keeps an address that nobody answers, or is not limited"

UNSEEN = "changes of these attachments are not noticed"
REMEDY = "run it as root in the host's namespaces; recreate a pod whose network namespace is gone"


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields one ailment for all attachments that differ, one for those that cannot be compared, and one for those that
    are gone.
    """
    by_difference: dict[str, list[str]] = {}
    by_error: dict[str, list[str]] = {}
    # An ailment of its own, for which no attachment is to be repaired.
    named = tuple([f"the host does not forward IPv{family} " for family in unforwarded(node)])
    for attached in node.attached:
        if attached.interface == PRESENT:
            for each in compared(attached):
                is_named = kind_of(each.plugin) == IPAM or each.difference.startswith(named)  # leases: see pools
                if each.difference and not is_named:
                    by_difference.setdefault(each.difference, []).append(attached.name)
                if each.error:
                    by_error.setdefault(each.error, []).append(attached.name)
    if by_difference:
        names, evidence = some(_names(by_difference)), some(list(by_difference))
        yield Ailment("attachment-changed", names, evidence, CONSEQUENCE, "podwire repair", "podwire check")
    if by_error:
        names, evidence = some(_names(by_error)), some(list(by_error))
        yield Ailment("not-examined", names, evidence, UNSEEN, REMEDY, "podwire check")
    old = time.time() - YOUNG_SECONDS
    gone = [attached.name for attached in node.attached if attached.interface == GONE and 0 < attached.since < old]
    if gone:
        yield Ailment(
            "attachment-gone",
            some(gone),
            "the host interface is gone, and DEL was never called",
            "addresses and host ports stay taken",
            "podwire gc, and the container runtime's own cleanup",
            "podwire ps",
        )


def _names(holders: dict[str, list[str]]) -> list[str]:
    return list(dict.fromkeys([name for names in holders.values() for name in names]))


def some(names: list[str]) -> str:
    """Returns the first names and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
