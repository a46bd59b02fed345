"""Faults of policies: what they say and podwired does not do. The log, a metric and `podwire policy show` tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.logs import log
from cni.agent.policy.clusterpolicy import ClusterPolicy
from cni.agent.policy.events import CLUSTER_POLICIES, POLICIES
from cni.agent.policy.objects import NetworkPolicy

if TYPE_CHECKING:
    from cni.agent.metrics import Metrics
    from cni.agent.policy.clusterpolicy import Tie
    from cni.agent.policy.events import Key, PolicyObject

IGNORED = "ignored"  # the policy cannot be read: it stays as it was before
CLOSED = "closed"  # a part cannot be read: it accepts nothing, or denies everything
UNSUPPORTED = "unsupported"  # a part matches nothing
TIED = "tied"  # only their names order the policies


class Faults:
    """The policies at fault. The stores log what is wrong with an object by itself."""

    def __init__(self, metrics: Metrics) -> None:
        self._numbers = {fault: metrics.policy_faults.labels(fault) for fault in (IGNORED, CLOSED, UNSUPPORTED, TIED)}
        self._reasons: dict[str, dict[tuple[str, Key], str]] = {IGNORED: {}, CLOSED: {}, UNSUPPORTED: {}}
        self._ties: set[Tie] = set()

    def note(self, kind: str, key: Key, new: PolicyObject | None) -> None:
        """Takes in a policy as its store has it; None: it is gone."""
        if kind not in (POLICIES, CLUSTER_POLICIES):
            return
        self._put(IGNORED, kind, key, new if isinstance(new, str) else "")
        if not isinstance(new, str):
            self._put(CLOSED, kind, key, new.error if isinstance(new, NetworkPolicy | ClusterPolicy) else "")
            self._put(UNSUPPORTED, kind, key, new.unserved if isinstance(new, ClusterPolicy) else "")

    def note_ties(self, ties: set[Tie]) -> None:
        """Takes in which policies are tied, and logs new ties."""
        for tie in sorted(ties - self._ties):
            log.warning(
                "ClusterNetworkPolicies %s of tier %s: they select the same pods with priority %d, so that their names"
                " decide which is asked first (give each a priority of its own)",
                ", ".join(tie.names),
                tie.tier,
                tie.priority,
            )
        self._ties = ties
        self._numbers[TIED].set(len({name for tie in ties for name in tie.names}))

    def counts(self) -> dict[str, int]:
        """Returns the number of policies by fault."""
        tied = {name for tie in self._ties for name in tie.names}
        return {**{fault: len(reasons) for fault, reasons in self._reasons.items()}, TIED: len(tied)}

    def ignored(self, namespace: str) -> list[str]:
        """Returns which policies that may concern pods of a namespace are ignored, and why."""
        policies = [
            f"{kind} {'/'.join(filter(None, key))}: {reason}"
            for (kind, key), reason in self._reasons[IGNORED].items()
            if key[0] in ("", namespace)
        ]
        return sorted(policies)

    def _put(self, fault: str, kind: str, key: Key, reason: str) -> None:
        reasons = self._reasons[fault]
        if reason:
            reasons[kind, key] = reason
        else:
            reasons.pop((kind, key), None)
        self._numbers[fault].set(len(reasons))
