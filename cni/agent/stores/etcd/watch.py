"""The network's configuration and all leases in etcd: listed once, then watched, in one stream.

A stream that ends is resumed where it ended. Where etcd cannot do that (compacted, restored from a backup, refused) all
is listed again.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from cni.agent.model.events import Changed, Listed
from cni.agent.model.lease import Lease, parse_key, parse_lease
from cni.agent.stores.errors import StoreError
from cni.agent.stores.etcd.client import understood
from cni.agent.stores.etcd.errors import GatewayError
from cni.agent.stores.etcd.messages import KeyValue, key_value, prefix_range, revision_of, text64
from cni.agent.stores.watchloop import CALM, DOWN, Backoff, WatchLoop, reason_of
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from cni.agent.model.events import StoreEvent
    from cni.agent.stores.etcd.client import Gateway, Stream
    from cni.agent.stores.etcd.lease import Listing, OwnLease
    from cni.agent.stores.etcd.messages import Json

log = logging.getLogger("podwired.etcd")

CONFIG, LEASES = 1, 2  # the two watches
LONGEST_REASON = 200  # characters
MOST_LOGGED = 10  # different errors, until a stream lives
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Outdated(GatewayError):
    """etcd cannot resume the watch from the revision that is known; all has to be listed again."""


class WatchHandler(Record):
    """Functions that the watcher calls, in its own thread.

    `configured` with the value of the configuration's key, None if it is missing; `disturbed` when the own key is not
    as this node wrote it; `connected` once the stream is open; `failed` with the reason.
    """

    configured: Callable[[bytes | None], None]
    disturbed: Callable[[], None]
    connected: Callable[[], None]
    failed: Callable[[str], None]
    emit: Callable[[StoreEvent], None]


class Watcher(WatchLoop):
    """The watcher of the configuration's key and the leases; the latter are listed and watched once a lease is held."""

    def __init__(self, gateway: Gateway, prefix: bytes, own: OwnLease, handler: WatchHandler, stop: Event) -> None:
        super().__init__(stop, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
        self._gateway, self._own, self._handler = gateway, own, handler
        self._config, self._folder = prefix + b"/config", prefix + b"/subnets/"
        self._revisions: dict[int, int] = {}  # by watch: the last one whose events are known
        self._cluster = ""
        self._uncreated: set[int] = set()  # watches that etcd has not confirmed yet
        self._logged: set[str] = set()
        self._outdated = False
        self._listing: Listing | None = None

    def relist(self, listing: Listing | None = None) -> None:
        """Lists all again, from any thread. `listing`: all leases, as somebody has listed them just now."""
        self._listing, self._outdated = listing, True
        self.interrupt()

    def _recover(self, error: Exception) -> None:
        """A stream may break: that is reported only where it cannot be resumed."""
        if time.monotonic() - self._up_since > CALM:
            self._logged.clear()
        self._gateway.rotate_endpoint()
        reason = reason_of(error)
        if not isinstance(error, StoreError):
            log.debug("%s", reason, exc_info=error)
        if self._up_since == DOWN and not isinstance(error, Outdated):
            self._handler.failed(reason)
        elif reason not in self._logged:
            log.warning("%s", reason)
        if len(self._logged) < MOST_LOGGED:
            self._logged.add(reason)

    def _follow(self) -> None:
        """Lists if needed, then watches. Raises GatewayError when the stream ends."""
        if self._outdated:
            self._outdated = False
            self._revisions.clear()
        if not self._revisions:
            self._list()
        creates = [{"key": text64(self._config)}, prefix_range(self._folder)]
        # From the last revision known, whose events are skipped: where the next one is that of a compaction, etcd
        # (before 3.5.18) forgets what was deleted by it, and only a request for an older one is refused.
        stream = self._gateway.watch(
            [
                {**create, "watch_id": str(number), "start_revision": str(self._revisions[number])}
                for number, create in zip((CONFIG, LEASES), creates, strict=True)
                if number in self._revisions
            ]
        )
        self._uncreated = set(self._revisions)
        with self._opened(stream) as wanted:
            if not wanted:
                return
            for message in stream:
                with understood("watch"):
                    self._handle_message(message, stream)

    def _list(self) -> None:
        revision, entry = self._gateway.get(self._config)
        self._handler.configured(entry.value if entry is not None else None)
        revisions = {CONFIG: revision}
        if self._own.held is not None:
            listing, self._listing = self._listing, None
            revisions[LEASES], entries = listing or self._gateway.list_keys(self._folder)
            leases = dict([self._read(entry) for entry in entries])
            with self._own.lock:
                self._handler.emit(Listed(leases))
            if listing is None:  # else the own key was written after it
                self._compare(entries)
        self._revisions = revisions
        self._cluster = ""

    def _compare(self, entries: list[KeyValue]) -> None:
        held = self._own.held
        if held is None or (self._folder + held.lease.key.encode(), held.revision) not in {
            (entry.key, entry.modified) for entry in entries
        }:
            self._handler.disturbed()

    def _read(self, entry: KeyValue) -> tuple[str, Lease | str]:
        key = self._key(entry)
        try:
            return key, parse_lease(parse_key(key), entry.value, entry.created)
        except ValueError as error:
            return key, str(error)[:LONGEST_REASON]

    def _key(self, entry: KeyValue) -> str:
        return entry.key[len(self._folder) :].decode("utf-8", "backslashreplace")

    def _handle_message(self, message: Json, stream: Stream) -> None:
        """Handles one message. Raises GatewayError where etcd ends the watch."""
        number = int(message.get("watch_id", 0))
        if message.get("canceled"):
            self._revisions.clear()
            self._gateway.forget_token()  # an old one is refused in the same words
            if "compact_revision" in message:
                raise Outdated("etcd was compacted past the last known revision: listing all leases again")
            reason = message.get("cancel_reason")
            raise GatewayError(f"etcd canceled the watch{f': {reason}' if reason else ' (no reason given)'}")
        if message.get("created"):
            self._handle_created(number, message, stream)
        elif events := [
            event for event in message.get("events", ()) if int(event["kv"]["mod_revision"]) > self._revisions[number]
        ]:
            (self._handle_config if number == CONFIG else self._handle_leases)(events)
            self._revisions[number] = int(events[-1]["kv"]["mod_revision"])

    def _handle_created(self, number: int, message: Json, stream: Stream) -> None:
        cluster = str(message["header"].get("cluster_id", ""))
        if revision_of(message) < self._revisions[number] or (self._cluster and cluster != self._cluster):
            self._revisions.clear()
            raise Outdated("etcd is at an older revision than before: listing all leases again")
        self._cluster = cluster
        self._uncreated.discard(number)
        if not self._uncreated:
            stream.set_silence(None)
            self._up_since = time.monotonic()
            if self._logged:
                log.info("watching etcd again")
            self._handler.connected()

    def _handle_config(self, events: list[Json]) -> None:
        last = events[-1]
        self._handler.configured(None if last.get("type") == "DELETE" else key_value(last["kv"]).value)

    def _handle_leases(self, events: list[Json]) -> None:
        entries = [key_value(event["kv"]) for event in events]
        changed = dict(
            [
                (self._key(entry), None) if event.get("type") == "DELETE" else self._read(entry)
                for entry, event in zip(entries, events, strict=True)
            ]
        )
        with self._own.lock:
            held = self._own.held
            self._handler.emit(Changed(changed))
        if held is None:
            return
        own = self._folder + held.lease.key.encode()
        if any(entry.key == own and entry.modified > held.revision for entry in entries):
            self._handler.disturbed()
