"""The etcd v3 store: flannel's keys and values, so that nodes of both can share one network.

Two threads: one watches etcd, the other keeps the own lease. Both sleep while nothing happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.model.events import Configured
from cni.agent.model.network import parse_network_config
from cni.agent.stores.etcd.client import Gateway
from cni.agent.stores.etcd.lease import DesiredLease, OwnLease, Times
from cni.agent.stores.etcd.watch import Watcher, WatchHandler, log
from cni.agent.stores.watchloop import Backoff
from cni.agent.stores.worker import WATCH, StoreWorker
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from cni.agent.model.network import NetworkConfig
    from cni.agent.stores.etcd.options import EtcdOptions
    from cni.protocol.address import Net

LONGEST_REASON = 1000  # characters
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # after the lease could not be kept
CONFIG = "configuration"  # a part that may fail


class EtcdStore(StoreWorker[DesiredLease]):
    """A store that takes a lease. A new configuration has effect on it once a node of its families and backend is
    presented.
    """

    def __init__(self, options: EtcdOptions, previous: tuple[Net, ...], times: Times | None = None) -> None:
        """`previous`: the subnets that this node had, preferred over others."""
        super().__init__("etcd", log, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
        times = times or Times(margin=60.0 * options.renew_margin)
        prefix = options.prefix.rstrip("/")
        self._config_key = f"{prefix}/config"
        self._config: NetworkConfig | None = None  # this and the next with the lock
        self._wanted: DesiredLease | None = None
        self._gateway = gateway = Gateway(options)
        folder = f"{prefix}/subnets/".encode()
        self._own = OwnLease(gateway, folder, times, previous, self._emit, self._stop)
        handler = WatchHandler(self._configure, self._disturb, self._connected, self._watch_failed, self._emit)
        self._watcher = Watcher(gateway, prefix.encode(), self._own, handler, self._stop)
        self._add_thread("etcd-watcher", self._watcher.run)

    def ready(self) -> None:
        """Does nothing: other nodes see the lease alone."""

    def _interrupt(self) -> None:
        self._watcher.interrupt()

    def _reconnect(self) -> None:
        self._gateway.reset_connections()
        self._watcher.relist()

    def _watch_failed(self, reason: str) -> None:
        self._fail(WATCH, reason)

    def _configure(self, value: bytes | None) -> None:
        """Takes the value of the configuration's key; if it cannot be used, the last good one stays."""
        try:
            config = self._read(value)
        except CniError as error:
            text = error.message[:LONGEST_REASON]
            self._fail(CONFIG, f"{text}; keeping the previous configuration" if self._config is not None else text)
            return
        self._succeed(CONFIG)
        if config != self._config:
            self._emit(Configured(config))
            with self._wake:
                self._config = config
                self._update()

    def _read(self, value: bytes | None) -> NetworkConfig:
        """Raises CniError."""
        if value is None:
            raise CniError(f"etcd has no network configuration: the key {self._config_key} is missing")
        return parse_network_config(value, f"{self._config_key} in etcd")

    def _update(self) -> None:
        config, node = self._config, self._node
        if config is None or node is None:
            return
        families = tuple([address.public_ip.family for address in node.addresses])
        if families == config.families and node.backend == config.backend.kind:
            self._wanted = DesiredLease(config, node)
            self._disturb()

    def _desired(self) -> DesiredLease | None:
        return self._wanted

    def _sync(self, desired: DesiredLease) -> float | None:
        """Raises GatewayError, NoSubnet."""
        before = self._own.held
        try:
            self._own.sync(desired)
        except Exception:
            self._gateway.rotate_endpoint()
            raise
        held, listing = self._own.held, self._own.take_listing()
        if held is not None and (before is None or before.lease.key != held.lease.key):
            self._watcher.relist(listing)
        return self._own.renewal
