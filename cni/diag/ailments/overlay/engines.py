"""Policy engines of others beside podwired's: a packet needs the consent of both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.attachments import some
from cni.diag.node.chains import chains
from cni.kernel import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

# What each leaves on a node, by the beginning of its name.
CHAINS = {"cali-": "Calico", "KUBE-POD-FW-": "kube-router", "WEAVE-NPC": "Weave Net"}
TABLES = {"calico": "Calico", "kube-router-filter": "kube-router"}
QUEUES = {"kube-network-policies": "kube-network-policies", "kindnet-network-policies": "kindnet"}  # tables
LINKS = {"cilium_host": "Cilium", "antrea-gw0": "Antrea"}
LISTENERS = "/proc/net/netfilter/nfnetlink_queue"  # without one the rules of such a table let all pass


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields the other engines, where podwired enforces policies."""
    if node.agent is None or not node.agent.get("policies"):
        return
    traces = [f"the interface {link.name} is {LINKS[link.name]}'s" for link in node.links if link.name in LINKS]
    tables = TABLES | (QUEUES if _is_read() else {})
    for chain in chains():
        traces += [
            f"table {chain.table} is {name}'s" for start, name in tables.items() if chain.table.startswith(start)
        ]
        traces += [f"chain {chain.name} is {name}'s" for start, name in CHAINS.items() if chain.name.startswith(start)]
    if traces:
        yield Ailment(
            "other-policy-engine",
            "NetworkPolicy",
            f"podwired enforces it, and {some(list(dict.fromkeys(traces)))}",
            "connections that podwired allows are denied by the other, also by rules that it has left",
            "remove the other one with its rules, or start podwired without --network-policy",
            "nft list chains; podwire policy show",
        )


def _is_read() -> bool:
    """Returns True if a process judges packets of a queue."""
    try:
        return bool(sysctl.read_text(LISTENERS))
    except OSError:
        return False
