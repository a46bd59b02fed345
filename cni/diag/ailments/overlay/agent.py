"""podwired: an agent that is gone, not ready, or not alone; leases that it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.overlay.tunnel import overlay_links
from cni.diag.node.agents import FLANNELD, agents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView
    from cni.diag.node.agents import Agent

PROOF = "podwired status"


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields what is wrong with the agent, then others beside it."""
    running = agents()
    if node.agent_gone and not any(agent.name == FLANNELD for agent in running):  # which has replaced it
        yield Ailment(
            "agent-gone",
            "podwired",
            f"it has prepared this node, and is gone: {node.agent_gone}",
            "routes to nodes that come or move are not updated",
            "systemctl restart podwired, or look at its pod",
            PROOF,
        )
    if node.agent_silent:
        yield Ailment(
            "agent-silent",
            "podwired",
            f"it runs, and does not answer: {node.agent_silent}",
            "routes to nodes that come or move are not updated, and new pods wait for their policies",
            "systemctl restart podwired, or restart its pod",
            PROOF,
        )
    down = [link.name for link in overlay_links(node) if not link.up]  # an ailment of its own
    reasons = node.agent.get("reasons", ()) if node.agent is not None else ()
    uplink = (node.agent or {}).get("uplink") or {}
    hint = f" ({uplink['interface']}, its uplink, is down)" if uplink and not uplink.get("up", True) else ""
    for reason in [f"{reason}{hint}" for reason in map(str, reasons) if not any(name in reason for name in down)]:
        consequence = "the node is not ready, or lacks routes to some peers"
        remedy = "as the message says, else see podwired's log"
        yield Ailment("agent-not-ready", "podwired", reason, consequence, remedy, PROOF)
    yield from _store(node, [*map(str, reasons)])
    for refused in node.agent.get("refused", ()) if node.agent is not None else ():
        evidence = f"{refused.get('key', '')}: {refused.get('reason', '')}"
        consequence, remedy = "pods of that node are not reached", "correct or remove the lease"
        yield Ailment("lease-refused", "podwired", evidence, consequence, remedy, PROOF)
    yield from _twice(running)


def _store(node: NodeView, reasons: list[str]) -> Iterator[Ailment]:
    """Yields a store that does not answer, unless this is the reason why the agent is not ready."""
    store = (node.agent or {}).get("store") or {}
    error = str(store.get("error") or "")
    if error and not any(error in reason for reason in reasons):
        yield Ailment(
            "store-unreachable",
            f"podwired's store ({store.get('kind', '')})",
            error,
            "nodes that come, move or go are not noticed, and a lease that has to be renewed expires",
            "as the message says: the store's servers, the way there, certificates and the clock",
            PROOF,
        )


def _twice(running: list[Agent]) -> Iterator[Ailment]:
    """Yields pairs that maintain the same. One that waits for the other's lock (the same file) is about to end, and a
    process that an agent has just started still has its name and open files.
    """
    for number, later in enumerate(running):
        for earlier in running[:number]:
            waited_for = earlier.states.items() & {(state, file) for state, file in later.states.items() if file}
            shared = earlier.states.keys() & later.states.keys() - dict(waited_for).keys()
            if shared and later.parent != earlier.pid:
                yield Ailment(
                    "agent-twice",
                    f"{earlier.name} and {later.name}",
                    f"processes {earlier.pid} and {later.pid} both maintain {' and '.join(sorted(shared))}",
                    "each undoes what the other does, and both renew or change this node's lease",
                    f"kill {later.pid} (and disable what starts it: a systemd unit, or a DaemonSet)",
                    f"ps -fp {earlier.pid},{later.pid}",
                )
