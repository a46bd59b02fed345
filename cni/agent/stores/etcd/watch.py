"""What etcd says of the network's configuration and of all leases: listed once, then watched, in one stream.

A stream that ends is taken up where it ended. Where etcd cannot do that (compacted, restored from a backup, refused)
all is listed again.
"""

from __future__ import annotations

import logging
import time
from random import SystemRandom
from threading import Lock
from typing import TYPE_CHECKING

from cni.agent.logs import error_text
from cni.agent.model.events import Changed, Listed
from cni.agent.model.lease import Lease, parse_key, parse_lease
from cni.agent.stores.etcd.allocation import NoSubnet
from cni.agent.stores.etcd.client import understood
from cni.agent.stores.etcd.errors import GatewayError
from cni.agent.stores.etcd.messages import KeyValue, key_value, prefix_range, revision_of, text64
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from cni.agent.model.events import StoreEvent
    from cni.agent.stores.etcd.client import Gateway, Stream
    from cni.agent.stores.etcd.lease import OwnLease
    from cni.agent.stores.etcd.messages import Json

log = logging.getLogger("podwired.etcd")

CONFIG, LEASES = 1, 2  # the two watches
LONGEST_FAULT = 200
MOST_LOGGED = 10  # different kinds of trouble
CALM = 5.0  # seconds for which a stream has to live until the trouble before it is over
DOWN = float("inf")


class Outdated(GatewayError):
    """What is known is no longer what etcd goes on from; all has to be listed again."""


class Backoff:
    """What goes wrong in one thread: how long to wait after it, and each kind of it logged once until it is over."""

    def __init__(self, first: float, limit: float) -> None:
        self._first, self._limit = first, limit
        self._logged: set[str] = set()
        self._pause = first

    def __bool__(self) -> bool:
        return bool(self._logged)

    def again(self, error: Exception) -> float:
        """In seconds until the next attempt: not the same on all nodes, when all have lost the same server."""
        why = told(error)
        if why not in self._logged and len(self._logged) < MOST_LOGGED:
            log.warning("%s", why)
            if not isinstance(error, (GatewayError, NoSubnet)):
                log.debug("%s", why, exc_info=error)
            self._logged.add(why)
        pause, self._pause = self._pause, min(2 * self._pause, self._limit)
        return max(pause * SystemRandom().uniform(0.5, 1), error.wait if isinstance(error, GatewayError) else 0.0)

    def over(self) -> None:
        self._logged.clear()
        self._pause = self._first


def told(error: Exception) -> str:
    """In words for people."""
    if isinstance(error, (GatewayError, NoSubnet)):
        return str(error)
    return error_text(error)


class WatchHandler(Record):
    """Whom the follower calls: with the configuration, when the own key is another's word, when the stream is up."""

    configured: Callable[[bytes | None], None]
    disturbed: Callable[[], None]
    connected: Callable[[], None]
    failed: Callable[[str], None]
    emit: Callable[[StoreEvent], None]


class Watcher:
    """Leases are told once one is held: till then only the configuration is."""

    def __init__(self, gateway: Gateway, prefix: bytes, own: OwnLease, handler: WatchHandler, stop: Event) -> None:
        self._gateway, self._own, self._hooks, self._stop = gateway, own, handler, stop
        self._config, self._folder = prefix + b"/config", prefix + b"/subnets/"
        self._places: dict[int, int] = {}  # by watch: the revision up to which all is known
        self._cluster = ""
        self._pending: set[int] = set()
        self._up_since = DOWN
        self._trouble = Backoff(0.1, 5.0)
        self._lock = Lock()  # of the two below, which other threads touch
        self._stream: Stream | None = None
        self._outdated = False

    def relist(self) -> None:
        """All is told anew, from any thread."""
        with self._lock:
            self._outdated = True
            if self._stream is not None:
                self._stream.interrupt()

    def run(self) -> None:
        while not self._stop.is_set():
            self._up_since = DOWN
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  # not even a defect may end the thread
                if not (self._outdated or self._stop.is_set()):
                    self._recover(error)

    def _recover(self, error: Exception) -> None:
        """A stream may break: that is told only where it cannot be taken up again."""
        if time.monotonic() - self._up_since > CALM:
            self._trouble.over()
        self._gateway.rotate_endpoint()
        pause = self._trouble.again(error)
        if self._up_since == DOWN and not isinstance(error, Outdated):
            self._hooks.failed(told(error))
        self._stop.wait(pause)

    def _follow(self) -> None:
        """Raises GatewayError when the stream ends."""
        with self._lock:
            if self._outdated:
                self._places.clear()
            self._outdated = False
        if not self._places:
            self._list()
        creates = [{"key": text64(self._config)}, prefix_range(self._folder)]
        # From the last revision known, whose events are skipped: where the next one is that of a compaction, etcd
        # (before 3.5.18) forgets what was deleted by it, and only who asks for an older one is refused.
        stream = self._gateway.watch(
            [
                {**create, "watch_id": str(number), "start_revision": str(self._places[number])}
                for number, create in zip((CONFIG, LEASES), creates, strict=True)
                if number in self._places
            ]
        )
        self._pending = set(self._places)
        try:
            with self._lock:
                self._stream = stream
                if self._outdated or self._stop.is_set():
                    return
            for message in stream:
                with understood("the watch"):
                    self._take(message, stream)
        finally:
            with self._lock:
                self._stream = None
            stream.close()

    def _list(self) -> None:
        revision, entry = self._gateway.get(self._config)
        self._hooks.configured(entry.value if entry is not None else None)
        places = {CONFIG: revision}
        if self._own.held is not None:
            places[LEASES], entries = self._gateway.listed(self._folder)
            leases = dict([self._read(entry) for entry in entries])
            with self._own.lock:
                self._hooks.emit(Listed(leases))
            self._compare(entries)
        self._places = places
        self._cluster = ""

    def _compare(self, entries: list[KeyValue]) -> None:
        held = self._own.held
        if held is None or (self._folder + held.lease.key.encode(), held.revision) not in {
            (entry.key, entry.modified) for entry in entries
        }:
            self._hooks.disturbed()

    def _read(self, entry: KeyValue) -> tuple[str, Lease | str]:
        key = entry.key[len(self._folder) :].decode("utf-8", "backslashreplace")
        try:
            return key, parse_lease(parse_key(key), entry.value)._replace(created=entry.created)
        except ValueError as error:
            return key, str(error)[:LONGEST_FAULT]

    def _take(self, message: Json, stream: Stream) -> None:
        """One message. Raises GatewayError where the watch is not to be had."""
        number = int(message.get("watch_id", 0))
        if message.get("canceled"):
            self._places.clear()
            self._gateway.forget_token()  # an old one is refused in the same words
            if "compact_revision" in message:
                raise Outdated("etcd was compacted past what is known, all leases are listed again")
            raise GatewayError(f"etcd refuses to be watched: {message.get('cancel_reason') or 'it does not say why'}")
        if message.get("created"):
            self._created(number, message, stream)
        elif events := [
            event for event in message.get("events", ()) if int(event["kv"]["mod_revision"]) > self._places[number]
        ]:
            (self._configuration if number == CONFIG else self._changes)(events)
            self._places[number] = int(events[-1]["kv"]["mod_revision"])

    def _created(self, number: int, message: Json, stream: Stream) -> None:
        cluster = str(message["header"].get("cluster_id", ""))
        if revision_of(message) < self._places[number] or (self._cluster and cluster != self._cluster):
            self._places.clear()
            raise Outdated("etcd is at an older state than before, all leases are listed again")
        self._cluster = cluster
        self._pending.discard(number)
        if not self._pending:
            stream.be_patient()
            self._up_since = time.monotonic()
            if self._trouble:
                log.info("etcd is followed again")
            self._hooks.connected()

    def _configuration(self, events: list[Json]) -> None:
        last = events[-1]
        self._hooks.configured(None if last.get("type") == "DELETE" else key_value(last["kv"]).value)

    def _changes(self, events: list[Json]) -> None:
        disturbed = False
        with self._own.lock:
            held = self._own.held
            own = self._folder + held.lease.key.encode() if held is not None else b""
            for event in events:
                entry = key_value(event["kv"])
                if event.get("type") == "DELETE":
                    key = entry.key[len(self._folder) :].decode("utf-8", "backslashreplace")
                    self._hooks.emit(Changed(key, None))
                else:
                    self._hooks.emit(Changed(*self._read(entry)))
                disturbed = disturbed or (held is not None and entry.key == own and entry.modified > held.revision)
        if disturbed:
            self._hooks.disturbed()
