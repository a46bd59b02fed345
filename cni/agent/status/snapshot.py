"""A snapshot of what the loop knows, for other threads: copies of a few dictionaries, however many peers there are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.agent.controllers.policy import PolicyController
    from cni.agent.controllers.reconciler import Reconciler
    from cni.agent.dataplane.devices import LinkState
    from cni.agent.dataplane.state import Entry, NextHop
    from cni.agent.model.lease import Lease
    from cni.agent.model.network import NetworkConfig
    from cni.agent.uplink.select import Underlay
    from cni.protocol.address import Net


class Forwarding(Record):
    """One family's routes to peers as they were last applied, but for the `refused` entries. `device`: the tunnel's
    interface index, 0 if there is none.
    """

    device: int
    routes: Mapping[Net, NextHop]
    refused: frozenset[Entry]


class Policies(Record):
    """The policies that are enforced, in numbers; `faults`: those at fault, by fault."""

    in_force: bool
    policies: int
    pods: int
    sets: int
    faults: Mapping[str, int]


class StoreState(Record):
    """A store of leases. `error` stands; `last_error` may be over, `last_error_time` is in seconds since the epoch."""

    kind: str
    error: str = ""
    last_error: str = ""
    last_error_time: float = 0.0


class Snapshot(Record):
    """The state at a `time`, in seconds since the epoch. What is not known yet is None or empty; `policies` is None
    also where none are enforced. `changed_at`: when a peer last changed, by its key.
    """

    node: str
    time: float
    store: StoreState
    config: NetworkConfig | None = None
    underlay: Underlay | None = None
    lease: Lease | None = None
    expires: float | None = None
    served: Mapping[str, Lease] = {}
    refused: Mapping[str, str] = {}
    changed_at: Mapping[str, float] = {}
    forwarding: Mapping[int, Forwarding] = {}
    tunnels: tuple[LinkState, ...] = ()
    policies: Policies | None = None


def take(node: str, store: StoreState, reconciler: Reconciler, policies: PolicyController | None) -> Snapshot:
    """Returns the state now; for the loop's thread."""
    cluster, drift = reconciler.cluster, reconciler.drift
    configured, held, peers = cluster.configured, cluster.held, cluster.peers
    forwarding = {
        family: Forwarding(
            reconciler.links[family].device if family in reconciler.links else 0,
            state.routes.copy(),
            frozenset(reconciler.refused.get(family, ())),
        )
        for family, state in drift.desired.items()
    }
    return Snapshot(
        node,
        time.time(),
        store._replace(error=cluster.failure),
        configured.config if configured is not None else None,
        reconciler.pinned.latest,
        held.lease if held is not None else None,
        held.expires if held is not None else None,
        peers.served.copy() if peers is not None else {},
        peers.errors.copy() if peers is not None else {},
        reconciler.peer_log.changed_at.copy(),
        forwarding,
        tuple([drift.links[index] for index in drift.devices if index in drift.links]),
        _policies(policies) if policies is not None else None,
    )


def _policies(policies: PolicyController) -> Policies:
    index, sets = policies.index, policies.tracker.table.sets
    return Policies(policies.in_force, index.policy_count, index.pod_count, len(sets), policies.faults.counts())
