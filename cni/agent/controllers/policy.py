"""The controller of NetworkPolicy: events of its store become one transaction on the kernel's table.

Nothing that fails opens anything: the table stays as it was last committed, and what is in doubt is compared.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.agent.controllers.base import NEVER
from cni.agent.controllers.faults import Faults
from cni.agent.controllers.localpods import LocalPods
from cni.agent.controllers.revocation import Revocation
from cni.agent.dataplane import bridge_filter
from cni.agent.dataplane.policy_table import TITLE, PolicyTable
from cni.agent.logs import error_text, log
from cni.agent.node.podrecords import PodRecords
from cni.agent.policy.events import (
    CLUSTER_POLICIES,
    LOCAL_PODS,
    NAMESPACES,
    NODES,
    POLICIES,
    REMOTE_PODS,
    ObjectsChanged,
    ObjectsForgotten,
    ObjectsListed,
    PolicyStoreFailed,
    PolicyStoreRecovered,
)
from cni.agent.policy.index import Index
from cni.agent.policy.intake import put_object
from cni.agent.policy.objects import Pod
from cni.agent.policy.tracker import Tracker
from cni.effects.journal import FAILURES
from cni.kernel.netlink import NetlinkError
from cni.protocol.address import IP

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.controllers.base import AgentEvent, Notifications
    from cni.agent.metrics import Metrics
    from cni.agent.policy.basetable import TableOptions
    from cni.agent.policy.desired import Change
    from cni.agent.policy.events import Key, PolicyObject, PolicyStore
    from cni.effects.host import Host

THIS_NODE = "this node"  # no node has this name; which pods are here, the store says
QUIET_SECONDS, LONGEST_SECONDS = 0.01, 0.05  # what comes together is applied together
HOLD_SECONDS = 5.0  # new policies wait so long for the addresses of pods and nodes that they ask for
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)  # after failures
NEEDED = frozenset({NAMESPACES, POLICIES, CLUSTER_POLICIES, LOCAL_PODS})


class PolicyController:
    """NetworkPolicy on one node. `status` is called with the reason why policies are not enforced; empty: they are."""

    def __init__(
        self, host: Host, metrics: Metrics, store: PolicyStore, options: TableOptions, status: Callable[[str], None]
    ) -> None:
        self._host, self._metrics, self._store, self._status = host, metrics, store, status
        self.faults = Faults(metrics)
        self._index = Index(THIS_NODE, opens_node=options.opens_node)
        self._tracker = Tracker(self._index, options)
        self._table = PolicyTable(host.netfilter, options)
        self._revocation = Revocation(host, metrics, self._index) if options.revoke else None
        self._pods = LocalPods(
            host, PodRecords(host.pod_records), (self._index, self._tracker.verdicts), store, options
        )
        self._listed: set[str] = set()
        self._local: dict[Key, tuple[bytes, ...]] = {}  # addresses
        self._began = self._latest = NEVER  # when the first event came that is not in force, and the last one
        self._wanted: set[str] = set()  # kinds that are watched only while a rule asks for them
        self._hold_end = 0.0  # nothing is done before
        self._failures = 0
        self._audit_due = True
        self._is_urgent = False  # an ADD waits
        self._in_doubt = True  # the table may differ by what was not applied
        self._in_force = False
        self._pods_moved = True
        self._error = self._bridge_error = self._store_error = self._reported = ""

    @property
    def due_at(self) -> float:
        """The moment (time.monotonic) from which on `sync` has something to do."""
        return min(self._table_due_at, self._revocation_due_at)

    @property
    def _table_due_at(self) -> float:
        if not self._listed >= NEEDED:
            return NEVER
        if self._audit_due:
            return self._hold_end
        if self._is_urgent:
            return 0.0
        return min(self._latest + QUIET_SECONDS, self._began + LONGEST_SECONDS, self._pods.due_at)

    @property
    def _revocation_due_at(self) -> float:
        """NEVER while the table is not what the index wants, or a rule asks for pods that are not listed yet: what they
        are allowed would be cut.
        """
        settled = self._in_force and not self._audit_due and self._latest == NEVER and self._listed >= NEEDED
        if self._revocation is None or not settled or not self._asked <= self._listed:
            return NEVER
        return self._revocation.due_at

    # What is known, for who asks about policies

    @property
    def index(self) -> Index:
        return self._index

    @property
    def tracker(self) -> Tracker:
        return self._tracker

    @property
    def in_force(self) -> bool:
        """True once the kernel has had the whole table."""
        return self._in_force

    # What happens

    def handle(self, event: AgentEvent) -> None:
        """Takes in an event of the store of policies; `sync` acts on it."""
        match event:
            case ObjectsChanged(kind, changes):
                for key, new in changes.items():
                    self._take(kind, key, new)
                self._is_urgent |= not self._pods.starting.keys().isdisjoint(changes)
            case ObjectsForgotten(kind, keys):
                self._listed.discard(kind)
                for key in keys:
                    self._take(kind, key, None)
            case ObjectsListed(kind):
                self._listed.add(kind)
                if kind in self._wanted and self._asked <= self._listed:
                    self._hold_end = 0.0
            case PolicyStoreFailed(reason):
                self._metrics.errors.labels("policy store").inc()
                self._store_error = f"NetworkPolicy: {reason}"
                self._tell()
                return
            case PolicyStoreRecovered():
                self._store_error = ""
                self._tell()
                return
            case _:
                return
        self._note_change()

    def _note_change(self) -> None:
        self._latest = time.monotonic()
        self._began = min(self._began, self._latest)

    def _take(self, kind: str, key: Key, new: PolicyObject | None) -> None:
        self.faults.note(kind, key, new)
        if not put_object(self._index, kind, key, new):
            return
        if kind == LOCAL_PODS:
            self._local.pop(key, None)
            if isinstance(new, Pod) and new.is_subject:
                self._local[key] = new.addresses
                self._pods.use(new.addresses)
                self._pods_moved = True

    def handle_links(self, notifications: Notifications) -> list[str]:
        """Takes in that pods are gone with their interfaces, and that IPVS begins. Returns an empty list: no link is
        desired here. Raises Malformed.
        """
        self._pods.hear_links(notifications)
        self._audit_due |= self._table.is_outdated_by(notifications)
        return []

    def handle_rules(self, notifications: Notifications) -> None:
        """Takes in changes in nftables by others: by an ADD or DEL, or such that `sync` has to compare the table.

        Raises Malformed.
        """
        try:
            heard = self._pods.hear(notifications)
        except FAILURES as failure:  # it is found by comparison
            log.warning("NetworkPolicy: a new pod: %s", error_text(failure))
            self._audit_due = True
            return
        self._audit_due |= heard.is_foreign
        if heard.is_ours:
            self._note_change()
            self._is_urgent = self._pods_moved = True

    def request_full_sync(self) -> None:
        """Makes the next `sync` compare everything, and ends watches that nothing needs."""
        self._audit_due = self._pods_moved = True
        for kind in self._wanted - self._asked:
            self._wanted.discard(kind)
            self._watch(kind, wanted=False)

    def request_rules_sync(self) -> None:
        self._audit_due = True

    # What is done

    def sync(self) -> bool:
        """Does what is due. Returns True: what fails is tried again here, and disturbs no other controller."""
        if self._table_due_at <= time.monotonic():
            self._sync_table()
        if self._revocation is not None and self._revocation_due_at <= time.monotonic():
            self._revocation.go_on()
        return True

    def _sync_table(self) -> None:
        before = {self._error, self._bridge_error, self._pods.error, ""}
        try:
            self._pods.go_on()
            if self._audit_due:
                self._pods.catch_up()
            changes = self._tracker.update()
            if self._must_wait():
                self._in_doubt = self._audit_due = True  # the changes are found by comparison
                return
            self._commit(changes)
            self._failures, self._error = 0, ""
        except FAILURES as failure:
            self._audit_due = self._in_doubt = True
            self._hold_end = time.monotonic() + RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
            self._failures += 1
            self._error = f"NetworkPolicy: {failure if isinstance(failure, NetlinkError) else error_text(failure)}"
            self._metrics.errors.labels("policy").inc()
        self._bridge_error = self._ensure_bridges()
        for text in sorted({self._error, self._bridge_error, self._pods.error} - before):
            log.error("%s", text)
        self._tell()

    @property
    def _asked(self) -> set[str]:
        """The kinds for which rules ask."""
        asked = {REMOTE_PODS: self._tracker.asks_for_pods, NODES: self._tracker.asks_for_nodes}
        return {kind for kind, is_asked in asked.items() if is_asked}

    def _watch(self, kind: str, *, wanted: bool) -> None:
        (self._store.watch_remote_pods if kind == REMOTE_PODS else self._store.watch_nodes)(wanted=wanted)

    def _must_wait(self) -> bool:
        """Asks for other nodes' pods, and nodes, when they begin to matter. Returns True while they are waited for."""
        asked = self._asked
        for kind in asked - self._wanted:
            self._wanted.add(kind)
            if kind not in self._listed:
                self._hold_end = time.monotonic() + HOLD_SECONDS if self._in_force else NEVER
            self._watch(kind, wanted=True)
        return not asked <= self._listed and time.monotonic() < self._hold_end

    def _commit(self, changes: list[Change]) -> None:
        """Raises CniError, NetlinkError, Interrupted, OSError."""
        began, self._began, self._latest = self._began, NEVER, NEVER
        self._is_urgent = False
        if changes and not self._in_doubt:
            try:
                self._table.apply(changes)
            except NetlinkError as refusal:  # perhaps others have changed the table
                log.debug("%s", refusal)
                self._audit_due = True
        if self._audit_due:
            self._audit()
        for seconds in self._pods.take_started():
            self._metrics.policy_pod_start_seconds.observe(seconds)
        touched = self._tracker.take_touched()
        touched.narrowed.difference_update(self._pods.settled)
        self._pods.settled.clear()
        if self._revocation is not None:
            self._revocation.touch(touched)
        if changes and began < NEVER:
            self._metrics.policy_programming_seconds.observe(time.monotonic() - began)
        self.faults.note_ties(self._tracker.ties)
        self._metrics.policies.set(self._index.policy_count)
        self._metrics.policy_pods.labels("local").set(len(self._local.keys() | self._pods.keys))
        self._metrics.policy_pods.labels("known").set(self._index.pod_count)
        self._metrics.note_sets(self._tracker.table.set_sizes)

    def _audit(self) -> None:
        self._table.adapt_to(self._host.rtnl)
        done = self._table.audit(self._tracker.table, self._pods.pending, self._pods.judged)
        if done and self._revocation is not None:
            self._revocation.touch_all()  # what others changed may have let connections in
        if done and not self._in_doubt:
            log.info("healed: table %s: %s", TITLE, done)
            self._metrics.policy_healed.inc()
        elif done:
            log.debug("table %s: %s", TITLE, done)
        self._audit_due = self._in_doubt = False
        if not self._in_force:
            self._in_force = True
            self._pods.catch_up()  # an ADD that came before the table did not wait
            if changes := self._tracker.update():
                self._table.apply(changes)
            log.info("NetworkPolicy is enforced: %d policies", self._index.policy_count)

    def _ensure_bridges(self) -> str:
        """Returns why packets on a bridge are not judged."""
        if not self._pods_moved:
            return self._bridge_error
        self._pods_moved = False
        addresses = {address for addresses in self._local.values() for address in addresses}
        addresses.update(self._pods.addresses)
        try:
            return bridge_filter.ensure(self._host, sorted(map(IP.from_packed, addresses)))
        except FAILURES as failure:
            return f"NetworkPolicy cannot be enforced on bridges: {error_text(failure)}"

    def _tell(self) -> None:
        """Tells which errors stand, when they have changed; errors of the store only until the table is in force."""
        errors = self._store_error if not self._in_force else "", self._error, self._bridge_error, self._pods.error
        text = "; ".join(filter(None, errors))
        if text != self._reported:
            self._reported = text
            self._status(text)
