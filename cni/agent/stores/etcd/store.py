"""The etcd v3 store: flannel's keys and values, so that nodes of both can share one network.

Two threads: one follows what etcd says, the other keeps the own lease. Both sleep while nothing happens.
"""

from __future__ import annotations

import time
from threading import Condition, Event, Thread, current_thread
from typing import TYPE_CHECKING

from cni.agent.model.events import Configured, Failed, Held
from cni.agent.model.network import parse_network_config
from cni.agent.stores.etcd.client import Gateway
from cni.agent.stores.etcd.lease import DesiredLease, OwnLease, Times
from cni.agent.stores.etcd.watch import Backoff, Watcher, WatchHandler, log, told
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.model.events import StoreEvent
    from cni.agent.model.lease import Node
    from cni.agent.model.network import NetworkConfig
    from cni.agent.stores.etcd.options import EtcdOptions
    from cni.protocol.address import Net

LONGEST_FAULT = 1000
CLOSING_SECONDS = 1.0


class EtcdStore:
    """A new configuration takes effect on the own lease once a node is presented that has its families and backend."""

    def __init__(self, options: EtcdOptions, previous: tuple[Net, ...], times: Times | None = None) -> None:
        """`previous`: the subnets that this node had, wished for again."""
        times = times or Times(margin=60.0 * options.renew_margin)
        prefix = options.prefix.rstrip("/")
        self._config_key = f"{prefix}/config"
        self._stop = Event()
        self._wake = Condition()  # of the five below
        self._config: NetworkConfig | None = None
        self._node: Node | None = None
        self._desired: DesiredLease | None = None
        self._disturbed = False
        self._failing = False
        self._config_error = ""
        self._said = ""  # the fault, where nothing was told since
        self._gateway = gateway = Gateway(options)
        folder = f"{prefix}/subnets/".encode()
        self._own = OwnLease(gateway, folder, times, previous, self._emit, self._stop)
        handler = WatchHandler(self._configured, self._disturb, self._connected, self._fail, self._emit)
        self._watcher = Watcher(gateway, prefix.encode(), self._own, handler, self._stop)
        self._threads = [
            Thread(target=self._watcher.run, name="etcd-follower", daemon=True),
            Thread(target=self._keep, name="etcd-keeper", daemon=True),
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
            self._gateway.reset_connections()
            self._watcher.relist()
        with self._wake:
            self._node = node
            self._update_desired()

    def ready(self) -> None:
        """Others see the lease, and no more."""

    def close(self) -> None:
        self._stop.set()
        self._watcher.relist()
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            if thread is not current_thread() and thread.is_alive():
                thread.join(CLOSING_SECONDS)  # a request that is under way may take longer

    def _emit(self, event: StoreEvent) -> None:
        if not self._stop.is_set():
            self._said = event.why if isinstance(event, Failed) else ""
            self._deliver(event)

    def _fail(self, why: str) -> None:
        self._emit(Failed(why))

    def _configured(self, value: bytes | None) -> None:
        """What the key holds now; of what cannot be used the last before stays."""
        try:
            config = self._read(value)
        except CniError as error:
            text = error.message[:LONGEST_FAULT]
            if text != self._config_error:
                log.warning("%s%s", text, "; the one before stays" if self._config is not None else "")
                self._config_error = text
                self._fail(text)
            return
        if config != self._config or self._config_error:
            self._config_error = ""
            self._emit(Configured(config))
            with self._wake:
                self._config = config
                self._update_desired()

    def _read(self, value: bytes | None) -> NetworkConfig:
        """Raises CniError."""
        if value is None:
            raise CniError(f"etcd has no network configuration: the key {self._config_key} is missing")
        return parse_network_config(value, f"{self._config_key} in etcd")

    def _update_desired(self) -> None:
        """With the lock held. Until configuration and node agree, the lease is kept as it was."""
        config, node = self._config, self._node
        if config is None or node is None:
            return
        families = tuple([address.public_ip.family for address in node.addresses])
        if families == config.families and node.backend == config.backend.kind:
            self._desired = DesiredLease(config, node)
            self._disturbed = True
            self._wake.notify_all()

    def _disturb(self) -> None:
        with self._wake:
            self._disturbed = True
            self._wake.notify_all()

    def _connected(self) -> None:
        """What was in vain while etcd was away is tried now, and said is what stands."""
        with self._wake:
            if self._failing:
                self._disturbed = True
                self._wake.notify_all()
        if self._said in ("", self._config_error):
            return
        with self._own.lock:
            held = self._own.held
            if held is not None:
                self._emit(Held(held.lease, held.grant.expires))
        if held is None and self._config_error:
            self._fail(self._config_error)
        elif held is None and self._config is not None:
            self._emit(Configured(self._config))

    def _keep(self) -> None:
        backoff = Backoff(1.0, 60.0)
        pause: float | None = None
        while (desired := self._awaited(pause)) is not None:
            before = self._own.held
            try:
                self._own.sync(desired)
            except Exception as error:  # noqa: BLE001  # not even a defect may end the thread
                self._failing = True
                self._gateway.rotate_endpoint()
                pause = backoff.again(error)
                self._fail(told(error))
                continue
            self._failing = False
            backoff.over()
            pause = self._own.renewal
            held = self._own.held
            if held is not None and (before is None or before.lease.key != held.lease.key):
                self._watcher.relist()

    def _awaited(self, pause: float | None) -> DesiredLease | None:
        """What to settle when there is need, at the latest after the pause; None at the end."""
        end = None if pause is None else time.monotonic() + pause
        with self._wake:
            while not self._stop.is_set():
                left = None if end is None else end - time.monotonic()
                if self._desired is not None and (self._disturbed or (left is not None and left <= 0)):
                    self._disturbed = False
                    return self._desired
                self._wake.wait(left)
        return None
