"""Revocation: after a change, connections are judged again, in pieces between which the loop does its other work.

A part of the controller of policies, which has it go on only while the table is as the index wants it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.agent.controllers.base import NEVER
from cni.agent.dataplane.connections import Walk
from cni.agent.logs import error_text, log
from cni.agent.policy.revocation import Judge
from cni.agent.uplink.select import local_addresses
from cni.effects.journal import FAILURES
from cni.kernel.conntrack import LACKING

if TYPE_CHECKING:
    from cni.agent.metrics import Metrics
    from cni.agent.policy.index import Index
    from cni.agent.policy.tracker import Touched
    from cni.effects.host import Host

GATHER_SECONDS = 0.2  # what is touched together is judged in one walk
PIECE_SECONDS = 0.02  # of a walk
LONGEST_REST_SECONDS = 0.5  # a walk is followed by a rest as long as itself
RETRY_SECONDS = 1.0


class Revocation:
    """Judges the connections of addresses that changes have touched, at first those of all pods of the node: what has
    changed while no agent was there, nobody knows.
    """

    def __init__(self, host: Host, metrics: Metrics, index: Index) -> None:
        self._host, self._metrics, self._index = host, metrics, index
        self._touched = set[bytes]()
        self._all = True
        self._due = 0.0
        self._walk: Walk | None = None
        self._began = 0.0
        self._labelled = set[bytes]()  # ends of connections that are revoked
        self._expected = 0  # connections
        self._is_lacking = False

    @property
    def due_at(self) -> float:
        """The moment (time.monotonic) from which on `go_on` has something to do."""
        if self._walk is not None:
            return 0.0
        return self._due if (self._all or self._touched) and not self._is_lacking else NEVER

    def touch(self, touched: Touched) -> None:
        """Has connections judged again. Where only more is allowed, those matter that are revoked."""
        before = self._all or bool(self._touched)
        self._touched |= touched.narrowed | (touched.widened & self._labelled)
        if self._touched and not before:
            self._due = max(self._due, time.monotonic() + GATHER_SECONDS)

    def touch_all(self) -> None:
        """Has the connections of all pods judged again, without delay."""
        self._all = True

    def go_on(self) -> None:
        """Judges for as long as a piece may take. Errors are logged, and all is judged again."""
        now = time.monotonic()
        if self.due_at > now:
            return
        try:
            walk = self._walk or self._begin(now)
            if not walk.go_on(Judge(self._index), now + PIECE_SECONDS):
                self._end(walk)
        except FAILURES as error:
            self._stop()
            self._fail(error)

    def _begin(self, now: float) -> Walk:
        self._index.node_addresses = frozenset([ip.packed for ip in local_addresses(self._host.rtnl)])
        addresses = frozenset(self._index.local_addresses() if self._all else self._touched)
        self._walk = Walk(self._host.netfilter, addresses, 0 if self._all else self._expected)
        self._touched, self._all, self._began = set(), False, now
        return self._walk

    def _end(self, walk: Walk) -> None:
        if walk.is_whole:
            self._expected = walk.seen
        self._labelled = self._labelled - walk.addresses | walk.labelled
        self._count(walk)
        self._stop()
        now = time.monotonic()
        self._due = now + min(now - self._began, LONGEST_REST_SECONDS)

    def _count(self, walk: Walk) -> None:
        self._metrics.policy_revoked_connections.inc(walk.revoked)
        if walk.revoked:
            log.info("NetworkPolicy: cut %d connections that are no longer allowed", walk.revoked)
        if walk.restored:
            log.info("NetworkPolicy: restored %d connections that are allowed again", walk.restored)

    def _stop(self) -> None:
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def _fail(self, error: Exception) -> None:
        """All is judged again after an error, unless the kernel cannot tell of connections."""
        self._all = True
        self._due = time.monotonic() + RETRY_SECONDS
        self._metrics.errors.labels("policy").inc()
        if getattr(error, "errno", 0) in LACKING:
            self._is_lacking = True
            log.warning("NetworkPolicy: established connections are not cut (load the module nf_conntrack_netlink)")
        else:
            log.error("NetworkPolicy: connections: %s", error_text(error))
