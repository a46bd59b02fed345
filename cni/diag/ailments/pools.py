"""Pools of addresses that are exhausted or leak."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.attachments import some
from cni.diag.node import sight
from cni.diag.node.pools import LEAKED, pools, unleased
from cni.protocol.errors import TryAgain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

PROOF = "podwire leases"


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields what is wrong with each pool. Raises CniError where leases cannot be read."""
    try:
        seen = pools([*node.configs()], node.attached, sight.look())
    except TryAgain as error:
        consequence, remedy = "ADD and DEL of the network wait, and fail", "end that process, if it does not go on"
        yield Ailment("lock-held", "leases", error.message, consequence, remedy, "cat /proc/locks")
        return
    for pool in seen:
        leaked = [each.lease.ip.text for each in pool.leases if each.state == LEAKED]
        lacking = [f"{address} of {name}" for address, name in unleased(pool, node.attached)]
        where = f"network {pool.network}, {pool.ranges or 'outside its ranges'}"
        if pool.is_full:
            evidence = f"all {pool.size} addresses are leased"
            remedy = "podwire leases --reclaim" if leaked else "fewer pods on this node, or a larger range"
            yield Ailment("pool-exhausted", where, evidence, "ADD fails with code 11", remedy, PROOF)
        elif leaked:
            evidence = f"no container has {some(leaked)}"
            consequence = f"{len(leaked)} of {pool.size or len(pool.leases)} addresses cannot be used"
            yield Ailment("leases-leaked", where, evidence, consequence, "podwire leases --reclaim", PROOF)
        if lacking:
            consequence = "the address may be given to a second container"
            remedy = "recreate the pod"
            yield Ailment("lease-missing", where, f"not leased: {some(lacking)}", consequence, remedy, PROOF)
