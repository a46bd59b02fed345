"""The own lease in etcd: found, taken, kept.

Whatever was done to it, `settle` brings it back to what the node has to say. Every write compares first, so that
nothing of another node's is ever overwritten; who loses such a comparison looks again.
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

log = logging.getLogger("podwired.etcd")

JITTER = 0.05  # seconds, the most: those who race for subnets get out of step
CALM = 1.0  # seconds between two writes: who fights over a key does it slowly
FOREVER = EtcdLease(0, None)


class Times(Record):
    """In seconds: how long a lease lasts, and how long before its end it is renewed."""

    lease: int = 86400
    margin: float = 3600.0


class DesiredLease(Record):
    """What the own lease has to fit, and what it has to say."""

    config: NetworkConfig
    node: Node


class HeldLease(Record):
    """The own key as it was seen or written last."""

    lease: Lease
    revision: int
    grant: EtcdLease
    macs: tuple[bytes | None, ...]  # as they were presented


class Candidate(Record):
    """A lease that says one of this node's addresses."""

    entry: KeyValue
    lease: Lease
    matches: int

    def rank(self, previous: tuple[Net, ...]) -> tuple[int, bool, bool, bytes]:
        """The first is used: of most addresses, then the one that pods here have addresses of, then a reserved one."""
        return -self.matches, self.lease.subnets != previous, bool(self.entry.lease), self.entry.key


class OwnLease:
    """`lock` is held while the own key is written and told: who tells of other keys takes it too."""

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

    def sync(self, desired: DesiredLease) -> None:
        """Raises GatewayError, NoSubnet."""
        if self.held is not None:
            self._stop.wait(max(0.0, self._written + CALM - time.monotonic()))
        while not (self._stop.is_set() or self._keep(desired) or self._find(desired)):
            self._stop.wait(SystemRandom().uniform(0, JITTER))

    @property
    def renewal(self) -> float | None:
        """In how many seconds."""
        expires = self.held.grant.expires if self.held is not None else None
        return None if expires is None else max(0.0, expires - self._times.margin - time.time())

    def _keep(self, desired: DesiredLease) -> bool:
        """The key that is held, if that is still this node's."""
        held = self.held
        if held is None or not fits(desired.config, held.lease.subnets):
            return False
        _, entry = self._gateway.get(self._folder + held.lease.key.encode())
        if entry is None:
            log.warning("the own lease %s was deleted, or has expired", held.lease.key)
            return False
        if entry.modified != held.revision and (thief := _other(entry, held.lease.subnets, desired.node)):
            log.warning("the own lease %s was taken by %s", held.lease.key, thief)
            return False
        return self._take(desired, Candidate(entry, held.lease, 0), held.lease, [])

    def _find(self, desired: DesiredLease) -> bool:
        """Among all keys one that is this node's already, else a new one."""
        revision, entries = self._gateway.list_keys(self._folder)
        keyed = self._keyed(entries)
        own = sorted(_own(keyed, desired.node), key=lambda one: one.rank(self._previous))
        used = next((one for one in own if fits(desired.config, one.lease.subnets)), None)
        gone = [one.entry for one in own if one is not used and _is_left(one, used, desired)]
        for entry in gone:
            log.warning("the lease %s was this node's before: it is removed", entry.key.decode())
        likely = used or next(iter(own), None)
        known = self.held.lease if self.held is not None else likely.lease if likely is not None else None
        if used is not None:
            return self._take(desired, used, known, gone)
        taken = [net for entry, subnets in keyed if entry not in gone for net in subnets]
        return self._create(desired, revision, taken, known, gone)

    def _keyed(self, entries: Iterable[KeyValue]) -> list[tuple[KeyValue, tuple[Net, ...]]]:
        """Those of the keys that are subnets."""
        keyed = []
        for entry in entries:
            with suppress(ValueError):
                keyed.append((entry, parse_key(entry.key[len(self._folder) :].decode())))
        return keyed

    def _wanted(self, desired: DesiredLease, subnets: tuple[Net, ...], known: Lease | None) -> Lease:
        """The MAC addresses that others know stay, until the node presents other ones."""
        renamed = self.held is not None and self.held.macs != desired.node.macs
        return desired.node.lease(subnets, None if renamed else known)

    def _take(self, desired: DesiredLease, used: Candidate, known: Lease | None, gone: list[KeyValue]) -> bool:
        """Writes nothing where the key says already what it should, for long enough. False: it has changed."""
        entry, lease = used.entry, self._wanted(desired, used.lease.subnets, known)
        grant = self._gateway.time_to_live(entry.lease) if entry.lease else FOREVER
        lasting = grant.expires is None or grant.expires - time.time() > self._times.margin
        if entry.value == lease_value(lease) and lasting and not gone:
            with self.lock:
                self._hold(desired, lease, entry.modified, grant)
            return True
        compare = [messages.unchanged(one) for one in (entry, *gone)]
        fresh = self._gateway.grant(self._times.lease) if entry.lease else FOREVER  # what was reserved stays so
        with self._unless_lost(fresh):
            return self._write(desired, lease, fresh, compare, gone) is None

    def _create(
        self, desired: DesiredLease, revision: int, taken: list[Net], known: Lease | None, gone: list[KeyValue]
    ) -> bool:
        """False: all has to be looked at anew. Raises NoSubnet."""
        wished = [*(known.subnets if known is not None else ()), *self._previous]
        subnets = choose(desired.config, desired.node, taken, wished)
        grant = self._gateway.grant(self._times.lease)
        with self._unless_lost(grant):
            while not self._stop.is_set():
                lease = self._wanted(desired, subnets, known)
                compare = [messages.none_created_since(self._folder, revision), *map(messages.unchanged, gone)]
                lost = self._write(desired, lease, grant, compare, gone, messages.created_since(self._folder, revision))
                if lost is None:
                    return True
                with understood("kv/txn"):
                    event = [messages.key_value(one) for one in lost["responses"][0]["response_range"].get("kvs", ())]
                keyed = self._keyed(event)
                if not event or _own(keyed, desired.node):
                    return False
                taken += [net for _, subnets in keyed for net in subnets]
                revision = messages.revision_of(lost)
                self._stop.wait(SystemRandom().uniform(0, JITTER))
                subnets = choose(desired.config, desired.node, taken, wished)
        return False

    def _write(
        self,
        desired: DesiredLease,
        lease: Lease,
        grant: EtcdLease,
        compare: list[Json],
        gone: list[KeyValue],
        *otherwise: Json,
    ) -> Json | None:
        """None where it was written; where a comparison failed, what etcd answers to `otherwise`."""
        key = self._folder + lease.key.encode()
        success = [messages.put(key, lease_value(lease), grant.lease), *(messages.delete(one.key) for one in gone)]
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
        """Revokes what was granted for nothing; but where nobody knows whether it was, since a key would go with it."""
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
    found = []
    for entry, subnets in keyed:
        if any(address in entry.value for address in addresses):  # thousands are not
            with suppress(ValueError):
                lease = parse_lease(subnets, entry.value)
                found.append(Candidate(entry, lease, _matches(lease, node)))
    return [one for one in found if one.matches]


def _other(entry: KeyValue, subnets: tuple[Net, ...], node: Node) -> str:
    """Who has it; empty if that is this node, or nobody because it cannot be read."""
    try:
        lease = parse_lease(subnets, entry.value)
    except ValueError:
        return ""
    return "" if _matches(lease, node) else ", ".join(endpoint.public_ip.text for endpoint in lease.endpoints)


def _is_left(one: Candidate, used: Candidate | None, desired: DesiredLease) -> bool:
    """A lease that this node had. One of another VTEP may be another node's that says our address: only where the
    network has no place for it is it taken for a left one.
    """
    families = [address.public_ip.family for address in desired.node.addresses]
    endpoints = [
        endpoint for endpoint in one.lease.endpoints if endpoint.subnet.family in families
    ]  # of the network's: it had another perhaps
    if one.matches < len(endpoints):
        return False
    macs = [endpoint.vtep_mac for endpoint in endpoints]
    mine = [
        [*desired.node.macs],
        [endpoint.vtep_mac for endpoint in used.lease.endpoints] if used is not None else macs,
    ]
    return macs in mine or not fits(desired.config, one.lease.subnets)


def _matches(lease: Lease, node: Node) -> int:
    """How many of the lease's addresses are this node's."""
    mine = {address.public_ip for address in node.addresses}
    return sum(endpoint.public_ip in mine for endpoint in lease.endpoints)
