"""Pods that ADD hands over to podwired: the kernel tells of their pending addresses, and each address has a record.

What the plugin changes in the maps is taken in as it comes, so the table need not be read for it. `catch_up` finds what
was missed: while podwired was away, or when the kernel could not report all.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.agent.controllers.base import NEVER
from cni.agent.controllers.drift import NFT_ELEMENTS, table_of
from cni.agent.dataplane.forgotten import Connections
from cni.agent.logs import error_text
from cni.agent.node.podrecords import is_young
from cni.agent.policy.basetable import PENDING
from cni.agent.policy.index import UNKNOWN
from cni.kernel import nft, rtnl, rtnl_parse
from cni.kernel.netlink import NetlinkError, attributes
from cni.plan.policy import IN, OPEN, OUT, TABLE, UNCHECKED, map_name, new_map
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.controllers.base import Notifications
    from cni.agent.node.podrecords import AttachedPod, PodRecords
    from cni.agent.policy.basetable import TableOptions
    from cni.agent.policy.events import Key, PolicyStore
    from cni.agent.policy.index import Index
    from cni.agent.policy.verdicts import Verdicts
    from cni.effects.host import Host

DEL_SECONDS = 2.0  # a DEL deletes the interface, then elements; if both did so, each would miss what the other deleted
SETTLE_SECONDS = 1.0  # new pods' addresses are moved when there was none for so long: that delays who ends an ADD
NEW_PODS = 64  # of so many, it is done at once: the kernel checks all ways of one packet, so also those of all new pods
PIECE_SECONDS = 0.2  # between two addresses whose connections end
VETH = "veth"  # how the names of podwire's host interfaces begin


class Heard(Record):
    """The subject of changes in nftables: `is_foreign` if the table has to be compared, `is_ours` if an ADD or DEL."""

    is_foreign: bool
    is_ours: bool


class LocalPods:
    """The pods of this node's ADDs, by address."""

    def __init__(
        self,
        host: Host,
        records: PodRecords,
        tables: tuple[Index, Verdicts],
        store: PolicyStore,
        options: TableOptions,
    ) -> None:
        self._host, self._records, self._store = host, records, store
        self._index, self._verdicts = tables
        self._chains = {
            map_name(suffix, family): PENDING[suffix] for suffix in (IN, OUT) for family in options.families
        }
        self._marks = {OPEN: options.open, UNCHECKED: not options.checks_sources}
        self._attached: dict[bytes, AttachedPod] = {}
        self._new_maps = {*map(new_map, self._chains)}
        self.pending: set[bytes] = set()  # addresses without a class, which the kernel has as pending
        self.judged: set[bytes] = set()  # addresses with a class in the maps of new pods
        self._settle_at = NEVER  # when these are to be moved (time.monotonic)
        self.starting: dict[Key, float] = {}  # pods that wait for their class, since when (time.time)
        self._gone: dict[str, float] = {}  # interfaces, until when their pods' DEL may come (time.monotonic)
        self._connections = Connections(host.netfilter)
        self._forget_at = 0.0  # when connections of pods that are gone are to be ended (time.monotonic)
        self.settled: set[bytes] = set()  # addresses that pods have newly got or lost: they have no connections
        self.error = ""  # why new pods are not closed

    @property
    def keys(self) -> set[Key]:
        return {pod.pod for pod in self._attached.values() if pod.pod is not None}

    @property
    def addresses(self) -> Iterable[bytes]:
        return self._attached.keys()

    def hear(self, notifications: Notifications) -> Heard:
        """Takes in changes in nftables by others. Raises Malformed, NetlinkError, OSError, CniError."""
        is_foreign, changed = False, dict[bytes, bool]()
        for kind, payload in notifications:
            if table_of(kind, payload) == TABLE and not self._take(kind, payload, changed):
                is_foreign = True
        for address in [address for address, is_pending in changed.items() if is_pending]:
            self._connections.claim(address)  # before it gets its class
        for address in changed:
            self._note(address, self._records.read(address))
        return Heard(is_foreign, self._verdicts.has_met)

    def _take(self, kind: int, payload: bytes, changed: dict[bytes, bool]) -> bool:
        """Takes in a change of elements as the plugin makes it: `changed` has True for what is pending now. Returns
        False for any other change.
        """
        message = kind & 0xFF
        name = nft.name_of(attributes(payload, nft.NFGENMSG.size).get(nft.NFTA_LIST_SET))
        if message == nft.NFT_MSG_DELSETELEM and name in self._new_maps:
            for element in nft.each_element(payload):
                self._verdicts.meet(name, element.key, None)
            return True
        if message not in NFT_ELEMENTS or name not in self._chains:
            return False
        for element in nft.each_element(payload):
            is_pending = message == nft.NFT_MSG_NEWSETELEM
            if is_pending and element.chain != self._chains[name]:
                return False
            if is_pending and element.key in self.judged:  # the other direction of an ADD that was heard of in parts
                continue
            self._verdicts.meet(name, element.key, element.chain if is_pending else None)
            changed[element.key] = is_pending
            self.judged.discard(element.key)
            (self.pending.add if is_pending else self.pending.discard)(element.key)
        return True

    def hear_links(self, notifications: Notifications) -> None:
        """Takes in that interfaces are gone, and with them pods whose DEL may never come. Raises Malformed."""
        for payload in [payload for kind, payload in notifications if kind == rtnl.RTM_DELLINK]:
            name = rtnl_parse.parse_link(payload).name
            if name.startswith(VETH) and any(pod.host_interface == name for pod in self._attached.values()):
                self._gone[name] = time.monotonic() + DEL_SECONDS

    @property
    def due_at(self) -> float:
        """The moment (time.monotonic) from which on `go_on` has something to do."""
        forget_at = self._forget_at if self._connections.is_waiting else NEVER
        return min([*self._gone.values(), forget_at, self._settle_at])

    def go_on(self) -> None:
        """Takes in that pods are gone whose interface has been gone for long enough, that pods are no longer new, and
        ends the connections of one.

        Raises NetlinkError, Interrupted, OSError, CniError.
        """
        now = time.monotonic()
        if self._settle_at <= now:
            self._settle_at = NEVER
            self._verdicts.settle(self.judged)
        if self._connections.is_waiting and self._forget_at <= now:
            self._forget_at = now + PIECE_SECONDS
            self._connections.go_on()
        gone = {name for name, moment in self._gone.items() if moment <= now}
        for name in gone:
            del self._gone[name]
        for address in [address for address, pod in self._attached.items() if pod.host_interface in gone]:
            self._note(address, None)

    def catch_up(self) -> None:
        """Takes in all records, and what is pending. Raises NetlinkError, Interrupted, OSError, CniError."""
        self._connections.begin()
        pending = self._read_pending()
        for address in pending - self.pending:
            self._connections.claim(address)
        self.pending |= pending
        interfaces = {link.name for link in self._host.rtnl.links()}
        records = self._read_records()
        for address, pod in list(records.items()):
            if pod.host_interface in interfaces or address in pending or is_young(pod):
                continue
            self._records.forget(address)  # of a pod whose DEL never came
            del records[address]
        for address in self._attached.keys() | records.keys():
            self._note(address, records.get(address))

    def _read_records(self) -> dict[bytes, AttachedPod]:
        """Returns no records where there can be none. Raises IOFailure."""
        try:
            self._records.begin(self._marks)
            self.error = ""
            return self._records.read_all()
        except OSError as error:
            self.error = f"NetworkPolicy: new pods are open until the store has their addresses: {error_text(error)}"
            return {}

    def _read_pending(self) -> set[bytes]:
        """Returns the addresses that are pending in the kernel, and have no class as new pods."""
        unjudged = set[bytes]()
        for name, chain in self._chains.items():
            pending = {element.key for element in self._elements(name) if element.chain == chain}
            judged = {element.key for element in self._elements(new_map(name))}  # read later: an ADD removes from it
            self.judged = (self.judged - pending) | (pending & judged)
            for address in pending - judged:
                self._verdicts.meet(name, address, chain)
            unjudged |= pending - judged
        return unjudged

    def _elements(self, name: str) -> list[nft.Element]:
        """Returns the elements of a map; none if there is no such map."""
        try:
            answers = self._host.netfilter.dump(*nft.all_elements(nft.SetRef(nft.NFPROTO_INET, TABLE, name)))
        except NetlinkError as error:
            if error.errno not in nft.NOT_FOUND:
                raise
            return []
        return [element for answer in answers for element in nft.each_element(answer)]

    def _note(self, address: bytes, pod: AttachedPod | None) -> None:
        """Takes in who has an address by its record; None: nobody."""
        before = self._attached.pop(address, None)
        if pod is None and before is not None:
            self.settled.add(address)
            self._connections.release(address)
            self._forget_at = time.monotonic() + PIECE_SECONDS
        if pod is not None:
            self.use([address])
            self._attached[address] = pod
            if pod.pod is not None and address in self.pending:
                self.starting[pod.pod] = pod.since
        if before != pod:
            for key in {holder.pod for holder in (before, pod) if holder is not None and holder.pod is not None}:
                self._settle(key)

    def use(self, addresses: Iterable[bytes]) -> None:
        """Takes in which addresses pods of this node have, as the store or a record tells."""
        self._connections.use(addresses)

    def _settle(self, key: Key) -> None:
        """Hands the addresses of a pod to the index; it may have several interfaces."""
        addresses = tuple([address for address, pod in self._attached.items() if pod.pod == key])
        self._store.note_attached(key, attached=bool(addresses))
        if addresses:
            self._index.attach(*key, addresses)
        else:
            self._index.detach(*key)
            self.starting.pop(key, None)

    def take_started(self) -> list[float]:
        """Returns how long pods have been pending that have their class now, in seconds; after a transaction."""
        judged = {address for address in self.pending if self._index.local_group(address) is not UNKNOWN}
        self.pending -= judged
        self.settled |= judged
        self.judged = (self.judged | judged) & self._verdicts.new
        if judged:
            self._settle_at = time.monotonic() + (SETTLE_SECONDS if len(self.judged) < NEW_PODS else 0)
        now, started = time.time(), list[float]()
        for address, pod in self._attached.items() if self.starting else ():
            if pod.pod in self.starting and self._index.local_group(address) is not UNKNOWN:
                started.append(now - self.starting.pop(pod.pod))
        return started
