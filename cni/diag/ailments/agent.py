"""podwired and the overlay: an agent that is gone or not ready, a tunnel that is down, leases that are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

PROOF = "podwired status"
TUNNELS = ("vxlan",)


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields what is wrong with the agent, then with the tunnel's device."""
    if node.agent_gone:
        yield Ailment(
            "agent-gone",
            "podwired",
            f"it has prepared this node, and is gone: {node.agent_gone}",
            "routes to nodes that come or move are not updated",
            "systemctl restart podwired, or look at its pod",
            PROOF,
        )
    for reason in node.agent.get("reasons", ()) if node.agent is not None else ():
        consequence = "the node is not ready, or lacks routes to some peers"
        remedy = "as the message says, else see podwired's log"
        yield Ailment("agent-not-ready", "podwired", str(reason), consequence, remedy, PROOF)
    for refused in node.agent.get("refused", ()) if node.agent is not None else ():
        evidence = f"{refused.get('key', '')}: {refused.get('reason', '')}"
        consequence, remedy = "pods of that node are not reached", "correct or remove the lease"
        yield Ailment("lease-refused", "podwired", evidence, consequence, remedy, PROOF)
    for link in node.links:
        if link.kind in TUNNELS and link.name.startswith("flannel") and not link.up:
            yield Ailment(
                "tunnel-down",
                link.name,
                "the device is down",
                "pods of other nodes are not reached",
                f"ip link set {link.name} up (podwired does it by itself where it runs)",
                f"ip -d link show {link.name}",
            )
