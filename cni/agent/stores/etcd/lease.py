"""The own lease in etcd: found or allocated, written, renewed.

`sync` restores it after any change by others. Every write is a compare-and-swap, so that no key of
another node is ever overwritten; a node that loses the comparison looks again.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from random import SystemRandom
from threading import Lock
from typing import TYPE_CHECKING

from cni.agent.model.events import Held
from cni.agent.model.lease import Lease, lease_value, parse_key, parse_lease
from cni.agent.stores.etcd import messages
from cni.agent.stores.etcd.allocation import NoSubnet, choose, fits
from cni.agent.stores.etcd.client import EtcdLease, understood
from cni.agent.stores.etcd.errors import EtcdRejected, GatewayError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from threading import Event

    from cni.agent.model.events import StoreEvent
    from cni.agent.model.lease import Node
    from cni.agent.model.network import NetworkConfig
    from cni.agent.stores.etcd.client import Gateway
    from cni.agent.stores.etcd.messages import Json, KeyValue
    from cni.protocol.address import Net

    Listing = tuple[int, list[KeyValue]]  # a revision, and all keys of the folder as they were at it

log = logging.getLogger("podwired.etcd")

JITTER = 0.05  # seconds, the most: nodes that race for subnets get out of step
CALM = 1.0  # seconds between two writes: nodes that fight over a key do it slowly
FOREVER = EtcdLease(0, None)


class Times(Record):
    """Times in seconds: how long a lease lasts, and how long before its end it is renewed."""

    lease: int = 86400
    margin: float = 3600.0


class DesiredLease(Record):
    """The network that the own lease has to fit, and the node's part of it."""

    config: NetworkConfig
    node: Node


class HeldLease(Record):
    """The own key as it was read or written last."""

    lease: Lease
    revision: int
    grant: EtcdLease
    macs: tuple[bytes | None, ...]  # as the node presented them


class Candidate(Record):
    """A lease with an address of this node; `matches` counts them."""

    entry: KeyValue
    lease: Lease
    matches: int

    def rank(self, previous: tuple[Net, ...]) -> tuple[int, bool, bool, bytes]:
        """Returns the key to sort by: most addresses first, then the one that pods here have addresses of, then a
        reserved one.
        """
        return -self.matches, self.lease.subnets != previous, bool(self.entry.lease), self.entry.key


class OwnLease:
    """The lease of this node. `lock` is held while the own key is written and emitted, and while others are emitted: so
    events of both are in order.
    """

    def __init__(
        self,
        gateway: Gateway,
        folder: bytes,
        times: Times,
        previous: tuple[Net, ...],
        emit: Callable[[StoreEvent], None],
        stop: Event,
    ) -> None:
        self._gateway, self._folder, self._times, self._previous = gateway, folder, times, previous
        self._deliver, self._stop = emit, stop
        self._written = -CALM
        self.lock = Lock()
        self.held: HeldLease | None = None
        self._listed: Listing | None = None

    def sync(self, desired: DesiredLease) -> None:
        """Makes the key so. Raises GatewayError, NoSubnet."""
        if self.held is not None:
            self._stop.wait(max(0.0, self._written + CALM - time.monotonic()))
        while not (self._stop.is_set() or self._keep(desired) or self._find(desired)):
            self._stop.wait(SystemRandom().uniform(0, JITTER))

    def take_listing(self) -> Listing | None:
        """Returns once all keys as `sync` has listed them, if it had to."""
        listed, self._listed = self._listed, None
        return listed

    @property
    def renewal(self) -> float | None:
        """Returns the seconds until the lease has to be renewed; None if it never expires."""
        expires = self.held.grant.expires if self.held is not None else None
        return None if expires is None else max(0.0, expires - self._times.margin - time.time())

    def _keep(self, desired: DesiredLease) -> bool:
        """Keeps the key that is held. False: it is no longer this node's, or does not fit."""
        held = self.held
        if held is None or not fits(desired.config, held.lease.subnets):
            return False
        _, entry = self._gateway.get(self._folder + held.lease.key.encode())
        if entry is None:
            log.warning("own lease was deleted, or has expired: %s", held.lease.key)
            return False
        if entry.modified != held.revision and (owner := _other_owner(entry, held.lease.subnets, desired.node)):
            log.warning("own lease %s was overwritten by %s", held.lease.key, owner)
            return False
        return self._take(desired, Candidate(entry, held.lease, 0), held.lease, [])

    def _find(self, desired: DesiredLease) -> bool:
        """Reuses a lease that this node already has, otherwise allocates one. False: that has to be tried again."""
        revision, entries = self._gateway.list_keys(self._folder)
        keyed = self._keyed(entries)
        self._listed = revision, entries
        own = sorted(_own(keyed, desired.node), key=lambda candidate: candidate.rank(self._previous))
        used = next((candidate for candidate in own if fits(desired.config, candidate.lease.subnets)), None)
        stale = [candidate.entry for candidate in own if candidate is not used and _is_stale(candidate, used, desired)]
        for entry in stale:
            log.warning("removing a stale lease of this node: %s", entry.key.decode())
            self._listed = None
        likely = used or next(iter(own), None)
        known = self.held.lease if self.held is not None else likely.lease if likely is not None else None
        if used is not None:
            return self._take(desired, used, known, stale)
        leased = [net for entry, subnets in keyed if entry not in stale for net in subnets]
        return self._create(desired, revision, leased, known, stale)

    def _keyed(self, entries: Iterable[KeyValue]) -> list[tuple[KeyValue, tuple[Net, ...]]]:
        """Returns the keys that are subnets."""
        keyed = []
        for entry in entries:
            with suppress(ValueError):
                keyed.append((entry, parse_key(entry.key[len(self._folder) :].decode())))
        return keyed

    def _wanted(self, desired: DesiredLease, subnets: tuple[Net, ...], known: Lease | None) -> Lease:
        """Returns the lease to write: MAC addresses that other nodes know stay, until the node presents other ones."""
        changed = self.held is not None and self.held.macs != desired.node.macs
        return desired.node.lease(subnets, None if changed else known)

    def _take(self, desired: DesiredLease, used: Candidate, known: Lease | None, stale: list[KeyValue]) -> bool:
        """Writes the key, unless it has the value already and lives long enough. False: it has changed meanwhile."""
        entry, lease = used.entry, self._wanted(desired, used.lease.subnets, known)
        grant = self._gateway.time_to_live(entry.lease) if entry.lease else FOREVER
        lasting = grant.expires is None or grant.expires - time.time() > self._times.margin
        if entry.value == lease_value(lease) and lasting and not stale:
            with self.lock:
                self._hold(desired, lease, entry.modified, grant)
            return True
        compare = [messages.unchanged(other) for other in (entry, *stale)]
        fresh = self._gateway.grant(self._times.lease) if entry.lease else FOREVER  # what was reserved stays so
        with self._unless_lost(fresh):
            return self._write(desired, lease, fresh, compare, stale) is None

    def _create(
        self, desired: DesiredLease, revision: int, leased: list[Net], known: Lease | None, stale: list[KeyValue]
    ) -> bool:
        """Allocates subnets. False: all keys have to be listed again. Raises NoSubnet."""
        preferred = [*(known.subnets if known is not None else ()), *self._previous]
        subnets = choose(desired.config, desired.node, leased, preferred)
        grant = self._gateway.grant(self._times.lease)
        with self._unless_lost(grant):
            while not self._stop.is_set():
                lease = self._wanted(desired, subnets, known)
                compare = [messages.none_created_since(self._folder, revision), *map(messages.unchanged, stale)]
                answer = self._write(
                    desired, lease, grant, compare, stale, messages.created_since(self._folder, revision)
                )
                if answer is None:
                    return True
                with understood("kv/txn"):
                    created = answer["responses"][0]["response_range"].get("kvs", ())
                    entries = [messages.key_value(message) for message in created]
                keyed = self._keyed(entries)
                if not entries or _own(keyed, desired.node):
                    return False
                leased += [net for _, subnets in keyed for net in subnets]
                revision = messages.revision_of(answer)
                self._stop.wait(SystemRandom().uniform(0, JITTER))
                subnets = choose(desired.config, desired.node, leased, preferred)
        return False

    def _write(
        self,
        desired: DesiredLease,
        lease: Lease,
        grant: EtcdLease,
        compare: list[Json],
        stale: list[KeyValue],
        *otherwise: Json,
    ) -> Json | None:
        """Returns None if the key was written; etcd's answer to `otherwise` if a comparison failed."""
        key = self._folder + lease.key.encode()
        success = [messages.put(key, lease_value(lease), grant.lease), *(messages.delete(entry.key) for entry in stale)]
        with self.lock:
            answer = self._gateway.txn(compare, success, list(otherwise))
            if not answer.get("succeeded"):
                return answer
            self._written = time.monotonic()
            self._hold(desired, lease, messages.revision_of(answer), grant)
        return None

    def _hold(self, desired: DesiredLease, lease: Lease, revision: int, grant: EtcdLease) -> None:
        self.held = HeldLease(lease, revision, grant, desired.node.macs)
        self._deliver(Held(lease, grant.expires))

    @contextmanager
    def _unless_lost(self, grant: EtcdLease) -> Iterator[None]:
        """Revokes a grant that is not used; but not if that is unknown, since the key would be deleted with it."""
        try:
            yield
        except (EtcdRejected, NoSubnet):
            self._revoke(grant)
            raise
        if self.held is None or self.held.grant != grant:
            self._revoke(grant)

    def _revoke(self, grant: EtcdLease) -> None:
        if grant.lease:
            with suppress(GatewayError):  # it expires by itself
                self._gateway.revoke(grant)


def _own(keyed: list[tuple[KeyValue, tuple[Net, ...]]], node: Node) -> list[Candidate]:
    addresses = [address.public_ip.text.encode() for address in node.addresses]
    candidates = []
    for entry, subnets in keyed:
        if any(address in entry.value for address in addresses):  # thousands are not
            with suppress(ValueError):
                lease = parse_lease(subnets, entry.value)
                candidates.append(Candidate(entry, lease, _matches(lease, node)))
    return [candidate for candidate in candidates if candidate.matches]


def _other_owner(entry: KeyValue, subnets: tuple[Net, ...], node: Node) -> str:
    """Returns the addresses of another node that has the key; empty if it is this node's, or cannot be read."""
    try:
        lease = parse_lease(subnets, entry.value)
    except ValueError:
        return ""
    return "" if _matches(lease, node) else ", ".join(endpoint.public_ip.text for endpoint in lease.endpoints)


def _is_stale(candidate: Candidate, used: Candidate | None, desired: DesiredLease) -> bool:
    """True for an earlier lease of this node. One of another VTEP may be another node's that names our address: it is
    stale only if it does not fit the network.
    """
    families = [address.public_ip.family for address in desired.node.addresses]
    # Only those of the network's families: it may have had others.
    endpoints = [endpoint for endpoint in candidate.lease.endpoints if endpoint.subnet.family in families]
    if candidate.matches < len(endpoints):
        return False
    macs = [endpoint.vtep_mac for endpoint in endpoints]
    used_macs = [endpoint.vtep_mac for endpoint in used.lease.endpoints] if used is not None else macs
    return macs in ([*desired.node.macs], used_macs) or not fits(desired.config, candidate.lease.subnets)


def _matches(lease: Lease, node: Node) -> int:
    """Returns how many of the lease's addresses are this node's."""
    own = {address.public_ip for address in node.addresses}
    return sum(endpoint.public_ip in own for endpoint in lease.endpoints)
