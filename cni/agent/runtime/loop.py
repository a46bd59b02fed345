"""The agent's one loop: what the store tells, what the kernel tells, and the time are all that it waits for."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from typing import TYPE_CHECKING

from cni.agent.logs import log
from cni.kernel.events import (
    NFNLGRP_NFTABLES,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    Events,
    Overflowed,
)
from cni.kernel.netlink import NETLINK_NETFILTER, Malformed
from cni.kernel.rtnl import NETLINK_ROUTE

if TYPE_CHECKING:
    from cni.agent.controllers.overlay import Reconciler
    from cni.agent.model.events import Store, StoreEvent
    from cni.agent.runtime.inotify import Files
    from cni.effects.host import Host

GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
)
GATHER_SECONDS = 0.05  # what is broken is seldom broken by one message
LOOK_SECONDS = 300.0  # after all, even if nothing was heard
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)  # what can be healed is so within 5 s


class EventQueue:
    """Store events from other threads, and a descriptor that becomes readable with them."""

    def __init__(self) -> None:
        self._news: deque[StoreEvent] = deque()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._descriptor

    def put(self, event: StoreEvent) -> None:
        self._news.append(event)
        os.eventfd_write(self._descriptor, 1)

    def wake(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def take(self) -> list[StoreEvent]:
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return []
        return [self._news.popleft() for _ in range(len(self._news))]


class Loop:
    def __init__(self, reconciler: Reconciler, store: Store, queue: EventQueue, host: Host, files: Files) -> None:
        """`host`: the reconciler's, whose changes are no news. `files`: what it writes."""
        self._reconciler, self._store, self._queue = reconciler, store, queue
        self._links = Events(NETLINK_ROUTE, GROUPS, host.rtnl)
        self._rules = Events(NETLINK_NETFILTER, (NFNLGRP_NFTABLES,), host.netfilter)
        self._files = files
        self._stopping = False
        self._due = 0.0  # when to look after all
        self._failures = 0

    def run(self) -> None:
        """Until SIGTERM or SIGINT; SIGHUP looks after all at once."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._look)
        waiting = select.poll()
        for one in (self._queue, self._links, self._rules, self._files):
            waiting.register(one, select.POLLIN)
        self._store.start(self._queue.put)
        try:
            while not self._stopping:
                waiting.poll(self._milliseconds())
                self._drain()
                self._sync_if_due()
        finally:
            self._store.close()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._queue.wake()

    def _look(self, *_: object) -> None:
        self._due = 0.0
        self._queue.wake()

    def _milliseconds(self) -> float:
        return max(0.0, self._due - time.monotonic()) * 1000 + 1

    def _drain(self) -> None:
        for event in self._queue.take():
            self._reconciler.handle(event)
        drift = self._reconciler.drift
        try:
            disturbed = [words for kind, payload in self._links.read() if (words := drift.disturbed(kind, payload))]
        except (Overflowed, Malformed):
            disturbed = ["more has changed than could be told"]
        if self._files.read():
            disturbed.append("a file of the agent's was touched")
        if disturbed:
            log.debug("%s", "; ".join(dict.fromkeys(disturbed)))
            self._at(time.monotonic() + GATHER_SECONDS)
        if drift.take_pods():
            self._reconciler.request_rules_sync()
        self._drain_rules()

    def _drain_rules(self) -> None:
        try:
            changes = self._rules.read()
        except (Overflowed, Malformed):
            self._reconciler.request_elements_sync()
            return
        drift = self._reconciler.drift
        if any(drift.elements_disturbed(kind, payload) for kind, payload in changes):
            self._reconciler.request_elements_sync()
        elif any(drift.rules_disturbed(kind, payload) for kind, payload in changes):
            self._reconciler.request_rules_sync()

    def _at(self, moment: float) -> None:
        """At the latest."""
        self._due = min(self._due, moment)

    def _sync_if_due(self) -> None:
        now = time.monotonic()
        if self._due <= now:
            self._due = now + LOOK_SECONDS
            self._reconciler.request_full_sync()
        if not self._reconciler.due:
            return
        settled = self._reconciler.sync()
        self._files.renew()
        if settled:
            self._failures = 0
            return
        self._at(time.monotonic() + RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])
        self._failures += 1
