"""The Kubernetes store: pod CIDRs and flannel's annotations of nodes, so that nodes of both can share one network.

Three threads: one follows what Kubernetes says, one looks at the network's configuration, one keeps what is said of the
own node. A lease is the pod CIDR of a node, and lasts as long as the node.
"""

from __future__ import annotations

import time
from functools import partial
from random import SystemRandom
from threading import Condition, Event, Thread, current_thread
from typing import TYPE_CHECKING

from cni.agent.model.events import Changed, Configured, Failed, Held, Listed
from cni.agent.model.leaseformat import lease_format
from cni.agent.stores.kube.client import Api, log
from cni.agent.stores.kube.config import ApiError, access_of
from cni.agent.stores.kube.file import NetworkFile
from cni.agent.stores.kube.nodes import (
    CONDITION,
    MESSAGE,
    REASON,
    NodeNotUsable,
    annotations_of,
    known_lease,
    names_of,
    override_ips,
    own_subnets,
)
from cni.agent.stores.kube.watch import Watcher, WatchHandler, told
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.model.events import StoreEvent
    from cni.agent.model.lease import Lease, Node
    from cni.agent.model.network import NetworkConfig
    from cni.agent.stores.kube.nodes import Json, OwnNode
    from cni.agent.stores.kube.options import KubeOptions
    from cni.protocol.address import Net

CALM = 1.0  # seconds between two such writes: who fights over annotations does it slowly
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # after a write that failed
CLOSING_SECONDS = 1.0
FILE, API, NODE, WRITE = "file", "API", "node", "write"  # where faults are


class DesiredNode(Record):
    """What the own node has to fit, what it has to say, and how it is."""

    config: NetworkConfig
    node: Node
    own: OwnNode
    ready: bool


class KubeStore:
    """What is told is told with the lock held: so nothing is told in another order than it happened."""

    def __init__(self, options: KubeOptions) -> None:
        self._options, self._names = options, names_of(options.prefix)
        self._stop = Event()
        self._wake = Condition()  # of all below but the last three
        self._config: NetworkConfig | None = None
        self._own: OwnNode | None = None
        self._leases: dict[str, Lease | str] | None = None
        self._configured: Configured | None = None
        self._node: Node | None = None
        self._held: Lease | None = None
        self._ready = False
        self._disturbed = False
        self._faults: dict[str, str] = {}
        self._said = ""  # the fault, where nothing was told since
        self._macs: tuple[bytes | None, ...] = ()  # what the node presented for the lease that is held
        self._announced = ""  # the node that was said to be ready
        self._written = -CALM
        self._api = Api(partial(access_of, options))
        handler = WatchHandler(self._list, self._see, self._hear, self._connected, partial(self._fault, API))
        self._watcher = Watcher(self._api, options, self._names, handler, self._stop)
        file = NetworkFile(options.network_file, self._configure, partial(self._fault, FILE), self._stop)
        self._threads = [
            Thread(target=run, name=f"kube-{name}", daemon=True)
            for name, run in (("follower", self._watcher.run), ("file", file.run), ("keeper", self._keep))
        ]

    def start(self, emit: Callable[[StoreEvent], None]) -> None:
        self._deliver = emit
        for thread in self._threads:
            thread.start()

    def present(self, node: Node) -> None:
        before = self._node
        if before is not None and [address.public_ip for address in before.addresses] != [
            address.public_ip for address in node.addresses
        ]:
            # Connections may be from an address that the node has no more: nothing would tell them for half a minute.
            self._api.reset_connections()
            self._watcher.reset_connections()
        with self._wake:
            self._node = node
            self._disturb()

    def ready(self) -> None:
        """Kubernetes is told, by the node's condition."""
        with self._wake:
            self._ready = True
            self._disturb()

    def close(self) -> None:
        self._stop.set()
        self._watcher.reset_connections()
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            if thread is not current_thread() and thread.is_alive():
                thread.join(CLOSING_SECONDS)  # a request that is under way may take longer

    def _emit(self, event: StoreEvent) -> None:
        if not self._stop.is_set():
            self._said = event.why if isinstance(event, Failed) else ""
            self._deliver(event)

    def _fault(self, where: str, why: str) -> None:
        with self._wake:
            if self._faults.get(where) != why:
                self._faults[where] = why
                log.warning("%s", why)
                self._emit(Failed(why))

    def _clear(self, where: str) -> None:
        """What is true now is told again, where a fault was told last that is over."""
        with self._wake:
            why = self._faults.pop(where, "")
            if not why or why != self._said:
                return
            if self._faults:
                self._emit(Failed(next(iter(self._faults.values()))))
            elif self._held is not None:
                self._emit(Held(self._held))
            elif self._configured is not None:
                self._emit(self._configured)

    def _configure(self, config: NetworkConfig) -> None:
        with self._wake:
            self._config = config
            self._clear(FILE)
            self._review()

    def _list(self, own: OwnNode | None, leases: dict[str, Lease | str]) -> None:
        with self._wake:
            self._leases = leases
            if self._held is not None:
                self._emit(Listed(dict(leases)))
            self._own = own
            self._review()

    def _see(self, own: OwnNode | None) -> None:
        """The own node, perhaps as it was before our last write."""
        with self._wake:
            if own is not None and self._own is not None and own.is_before(self._own):
                return
            same = own is self._own or (own is not None and own.says_as(self._own))
            self._own = own
            if not same:
                self._review()

    def _hear(self, name: str, lease: Lease | str | None) -> None:
        with self._wake:
            if self._leases is None or self._leases.get(name) == lease:
                return
            if lease is None:
                del self._leases[name]
            else:
                self._leases[name] = lease
            if self._held is not None:
                self._emit(Changed(name, lease))

    def _connected(self) -> None:
        """What was in vain while the API server was away is tried now."""
        with self._wake:
            self._clear(API)
            if WRITE in self._faults:
                self._disturb()

    def _review(self) -> None:
        """With the lock held: what follows from the file and the own node."""
        if self._config is None or self._leases is None:
            return
        name, own = self._watcher.name, self._own
        if own is None:
            self._fault(NODE, f'Kubernetes has no node "{name}": it is not registered yet, or --node-name is wrong')
            return
        try:
            configured = Configured(self._config, override_ips(own, self._names))
            if configured != self._configured:
                self._configured = configured
                self._emit(configured)
            own_subnets(own, name, self._config)
        except NodeNotUsable as unfit:
            self._fault(NODE, str(unfit))
        else:
            self._clear(NODE)
            self._disturb()

    def _disturb(self) -> None:
        """With the lock held."""
        self._disturbed = True
        self._wake.notify_all()

    def _keep(self) -> None:
        pause, wait = FIRST_PAUSE, None
        while (desired := self._awaited(wait)) is not None:
            try:
                self._sync(desired)
            except Exception as error:  # noqa: BLE001  # not even a defect may end the thread
                if not isinstance(error, ApiError):
                    log.debug("%s", error, exc_info=error)
                self._fault(WRITE, told(error))
                asked = error.wait if isinstance(error, ApiError) else 0.0
                wait = max(pause * SystemRandom().uniform(0.5, 1), asked)
                pause = min(2 * pause, LONGEST_PAUSE)
                continue
            self._clear(WRITE)
            pause, wait = FIRST_PAUSE, None

    def _awaited(self, pause: float | None) -> DesiredNode | None:
        """What to settle when there is need, at the latest after the pause; None at the end."""
        end = None if pause is None else time.monotonic() + pause
        with self._wake:
            while not self._stop.is_set():
                left = None if end is None else end - time.monotonic()
                due = self._disturbed or (left is not None and left <= 0)
                if due and (desired := self._desired()) is not None:
                    self._disturbed = False
                    return desired
                self._wake.wait(None if due else left)
        return None

    def _desired(self) -> DesiredNode | None:
        """None until configuration and node agree: the lease is kept as it was."""
        config, node, own = self._config, self._node, self._own
        if config is None or node is None or own is None:
            return None
        families = tuple([address.public_ip.family for address in node.addresses])
        vni = lease_format(config.backend.kind).vni(config.backend)
        if (families, node.backend, node.vni) != (config.families, config.backend.kind, vni):
            return None
        return DesiredNode(config, node, own, self._ready)

    def _sync(self, desired: DesiredNode) -> None:
        """Writes only what is not so already. Raises ApiError."""
        own = desired.own
        try:
            subnets = own_subnets(own, self._watcher.name, desired.config)
        except NodeNotUsable:
            return  # has been told
        lease = desired.node.lease(subnets, self._cluster(desired, subnets))
        wanted = annotations_of(lease, own, self._names)
        if differing := {key: text for key, text in wanted.items() if own.annotations.get(key) != text}:
            self._stop.wait(max(0.0, self._written + CALM - time.monotonic()))
            self._written = time.monotonic()
            log.info("tells other nodes %s", ", ".join([f"{key}={text}" for key, text in differing.items()]))
            self._write({"metadata": {"annotations": differing}})
        self._hold(lease, desired.node)
        if desired.ready and self._options.set_network_condition and self._announced != own.uid:
            if not own.available:
                self._write({"status": {"conditions": [_condition()]}})
            self._announced = own.uid

    def _cluster(self, desired: DesiredNode, subnets: tuple[Net, ...]) -> Lease | None:
        """The MAC addresses that others know stay, until the node presents other ones."""
        if self._held is None:
            return known_lease(desired.own, desired.node, subnets, self._names)
        return self._held if self._macs == _macs(desired.node) else None

    def _write(self, patch: Json) -> None:
        """Raises ApiError."""
        self._see(self._watcher.own_of(self._api.patch_status(self._watcher.name, patch)))

    def _hold(self, lease: Lease, node: Node) -> None:
        with self._wake:
            before, self._held, self._macs = self._held, lease, _macs(node)
            if lease != before:
                self._emit(Held(lease))
            if before is None and self._leases is not None:
                self._emit(Listed(dict(self._leases)))


def _macs(node: Node) -> tuple[bytes | None, ...]:
    return tuple([address.vtep_mac for address in node.addresses])


def _condition() -> Json:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return {"type": CONDITION, "status": "False", **times, "reason": REASON, "message": MESSAGE}
