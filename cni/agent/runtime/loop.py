"""The agent's loop: it waits for events of the stores, changes in the kernel, touched files, signals, and the time."""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from cni.agent.controllers.base import NEVER
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
    from collections.abc import Callable, Collection, Sequence

    from cni.agent.controllers.base import AgentEvent, Controller
    from cni.effects.host import Host

GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
)
GATHER_SECONDS = 0.05  # before a full sync: one breakage seldom comes as one message
LINK_PAUSE_SECONDS = 0.02  # after changes, until those of links are read: each of an ADD's dozen would wake podwired
FULL_SYNC_SECONDS = 300.0  # after the last one, even without any event
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)  # after failures: what can be repaired is repaired within 5 s


class EventQueue:
    """Events of stores from other threads, and a descriptor that becomes readable with them."""

    def __init__(self) -> None:
        self._events: deque[AgentEvent] = deque()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._descriptor

    def put(self, event: AgentEvent) -> None:
        self._events.append(event)
        os.eventfd_write(self._descriptor, 1)

    def wake(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def take(self) -> list[AgentEvent]:
        """Returns the events that have come, in order; without waiting."""
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return []
        return [self._events.popleft() for _ in range(len(self._events))]


class EventStore(Protocol):
    """A source of events, from threads of its own."""

    def start(self, emit: Callable[[AgentEvent], None]) -> None: ...

    def close(self) -> None: ...


class KernelEvents(Protocol):
    """A socket that becomes readable with changes in the kernel."""

    def fileno(self) -> int: ...

    def read(self) -> list[tuple[int, bytes]]:
        """Returns type and payload of all messages that have come, without waiting. Raises Overflowed."""


class WatchedFiles(Protocol):
    """A descriptor that becomes readable when somebody touches a file that the agent has written."""

    def fileno(self) -> int: ...

    def renew(self) -> None: ...

    def read(self) -> bool: ...


def kernel_events(host: Host) -> tuple[Events, Events]:
    """Returns the sockets for changes of links and for changes of rules, without those that the host's sockets make."""
    return Events(NETLINK_ROUTE, GROUPS, host.rtnl), Events(NETLINK_NETFILTER, (NFNLGRP_NFTABLES,), host.netfilter)


class Loop:
    """Waits for events, hands them to the controllers, and lets these sync when they are due."""

    def __init__(
        self,
        controllers: Sequence[Controller],
        stores: Sequence[EventStore],
        queue: EventQueue,
        events: tuple[KernelEvents, KernelEvents],
        files: WatchedFiles,
    ) -> None:
        """`events`: of links, and of rules."""
        self._controllers, self._stores, self._queue = controllers, stores, queue
        self._link_events, self._rule_events = events
        self._files = files
        self._stopping = False
        self._links_at = 0.0  # when changes of links are read again (time.monotonic)
        self._due = 0.0  # when the next full sync is due
        self._failures = 0

    def run(self) -> None:
        """Returns after SIGTERM or SIGINT; SIGHUP requests a full sync at once."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._resync)
        urgent, everything = select.poll(), select.poll()
        for source in (self._queue, self._rule_events, self._files):
            urgent.register(source, select.POLLIN)
            everything.register(source, select.POLLIN)
        everything.register(self._link_events, select.POLLIN)
        try:
            for store in self._stores:
                store.start(self._queue.put)
            while not self._stopping:
                self._drain(self._wait(urgent, everything))
                self._sync_if_due()
        finally:
            for store in self._stores:
                store.close()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        self._queue.wake()

    def _resync(self, *_: object) -> None:
        self._due = 0.0
        self._queue.wake()

    def _wait(self, urgent: select.poll, everything: select.poll) -> set[int]:
        """Returns the descriptors that can be read, once there is something to read or to do; changes of links are
        waited for after their pause.
        """
        if self._is_link_pause and ((ready := urgent.poll(self._milliseconds(self._links_at))) or self._is_link_pause):
            return {descriptor for descriptor, _ in ready}
        return {descriptor for descriptor, _ in everything.poll(self._milliseconds())}

    @property
    def _is_link_pause(self) -> bool:
        return time.monotonic() < self._links_at

    def _pause_links(self) -> None:
        """Begins a pause, but prolongs none: those who change rules all the time must not hide links."""
        if not self._is_link_pause:
            self._links_at = time.monotonic() + LINK_PAUSE_SECONDS

    def _milliseconds(self, end: float = NEVER) -> float:
        """Returns how long to wait for the next thing to do, and until this moment at most."""
        due = min([self._due, end, *[controller.due_at for controller in self._controllers]])
        return max(0.0, due - time.monotonic()) * 1000 + 1

    def _drain(self, ready: Collection[int]) -> None:
        """Reads these descriptors; the others would cost a system call and an exception each."""
        if self._queue.fileno() in ready:
            for event in self._queue.take():
                for controller in self._controllers:
                    controller.handle(event)
        disturbances = self._link_disturbances() if self._link_events.fileno() in ready else []
        if self._files.fileno() in ready and self._files.read():
            disturbances.append("a file of the agent's was touched")
        if disturbances:
            log.debug("%s", "; ".join(dict.fromkeys(disturbances)))
            self._sync_all_by(time.monotonic() + GATHER_SECONDS)
        if self._rule_events.fileno() in ready:
            self._drain_rules()

    def _link_disturbances(self) -> list[str]:
        try:
            notifications = self._link_events.read()
            if notifications:
                self._pause_links()
            return [text for controller in self._controllers for text in controller.handle_links(notifications)]
        except (Overflowed, Malformed):
            return ["more has changed than the kernel could report"]

    def _drain_rules(self) -> None:
        try:
            notifications = self._rule_events.read()
            if notifications:
                self._pause_links()
            for controller in self._controllers:
                controller.handle_rules(notifications)
        except (Overflowed, Malformed):
            log.debug("more has changed in nftables than the kernel could report")
            for controller in self._controllers:
                controller.request_rules_sync()

    def _sync_all_by(self, moment: float) -> None:
        self._due = min(self._due, moment)

    def _sync_if_due(self) -> None:
        now = time.monotonic()
        if self._due <= now:
            self._due = now + FULL_SYNC_SECONDS
            for controller in self._controllers:
                controller.request_full_sync()
        now = time.monotonic()
        due = [controller for controller in self._controllers if controller.due_at <= now]
        if not due:
            return
        results = [controller.sync() for controller in due]
        self._files.renew()
        if all(results):
            self._failures = 0
            return
        self._sync_all_by(time.monotonic() + RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])
        self._failures += 1
