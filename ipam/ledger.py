"""All leases of one network: the files of the store, found by the index.

The store is the truth, the index a cache: a lease that the index names is read from the store before it counts. If the
index does not match the store (another program has leased, podwire was killed, /run is empty or read-only), all leases
are read once.
"""

from __future__ import annotations

from cni.protocol.address import IP, parse_ip
from ipam.index import Damaged, Index, index_folder
from ipam.lease import Lease, parse_lease
from ipam.store import Store, disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    Alive = Callable[[Lease], bool]


class Ledger:
    """The leases, open and locked as a context manager, which turns an OSError into IOFailure.

    Without `alive` the leases are only read: nothing is repaired, released or saved.
    """

    def __init__(self, store: Store, alive: Alive | None) -> None:
        self._store = store
        self._network = store.folder.rpartition("/")[2]
        self._index = Index(index_folder(store.identity()))
        self._alive = alive
        if not self._index.matches(store):
            self.read_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._alive and error is None:  # after an interruption the index may lack a change
            self._index.save(self._store)
        self._store.close()
        if isinstance(error, OSError):
            raise disk_error(self._store.folder, error) from error

    def read_all(self) -> list[Lease]:
        """Returns all leases, after those of crashes and of earlier boots have been released."""
        dated = self._without_torn()
        if self._alive and not self._index.exists():
            dated = self._without_earlier_boots(dated, self._alive)
        leases = [lease for lease, _ in dated]
        self._index.fill([(lease.key(self._network), lease.ip) for lease in leases])
        if self._alive:
            self._index.save(self._store)
        return leases

    def _without_torn(self) -> list[tuple[Lease, int]]:
        """Returns all leases, each with when it was written (ns of the wall clock). A file without an owner was left by
        a crash: under the lock no program is writing one.
        """
        leases = []
        for ip, content, modified in self._store.scan():
            lease = Lease(ip, "", "") if content is None else parse_lease(ip, content)
            if lease:
                leases.append((lease, modified))
            elif self._alive:
                self._store.remove(ip)
        return leases

    def _without_earlier_boots(self, leases: list[tuple[Lease, int]], alive: Alive) -> list[tuple[Lease, int]]:
        """Returns the leases without those that are older than this boot and whose container is not alive.

        Both conditions are needed: a file's time may be wrong (clocks, backups), and so may a missing interface.
        """
        from ipam.boot import boot_time

        boot = boot_time() or 0
        kept = []
        for lease, modified in leases:
            if lease.container_id and modified < boot and not alive(lease):
                self._store.remove(lease.ip)
            else:
                kept.append((lease, modified))
        return kept

    def held(self, container_id: str, ifname: str) -> tuple[Lease, ...]:
        """Returns the leases with exactly this owner; an empty ifname selects older leases without an interface."""
        try:
            leases = self._look_up(container_id, ifname)
        except Damaged:
            leases = None
        if leases is None:
            self.read_all()
            leases = self._look_up(container_id, ifname)
        return tuple(leases or ())

    def _look_up(self, container_id: str, ifname: str) -> list[Lease] | None:
        """Returns the leases that the index names; None if it does not match the store."""
        texts = self._index.find(Lease(IP(4, 0), container_id, ifname).key(self._network))
        if texts is None:
            return None
        leases = [Lease(parse_ip(text), container_id, ifname) for text in texts]
        if any(parse_lease(lease.ip, self._store.read(lease.ip) or b"") != lease for lease in leases):
            return None
        return leases

    def held_by(self, container_id: str, ifname: str) -> tuple[Lease, ...]:
        """Returns an attachment's leases; older ones only if there are no others (reference: ReleaseByID)."""
        return self.held(container_id, ifname) or self.held(container_id, "")

    def first_free(self, family: int, low: int, high: int) -> int | None:
        try:
            return self._index.first_free(family, low, high)
        except Damaged:
            self.read_all()
        return self._index.first_free(family, low, high)

    def last(self, position: int) -> IP | None:
        return self._store.last(position)

    def lease(self, lease: Lease, position: int) -> bool:
        """Leases an address of the set at `position`; returns False if it is leased already."""
        if not self._store.create(lease.ip, lease.content):
            self._update_index(lambda: self._index.mark(lease.ip, leased=True))
            return False
        self._update_index(lambda: self._index.add(lease.key(self._network), lease.ip))
        try:
            self._store.set_last(position, lease.ip)
        except OSError:
            self.release(lease)
            raise
        return True

    def release(self, lease: Lease) -> None:
        self._store.remove(lease.ip)
        self._update_index(lambda: self._index.discard(lease.key(self._network), lease.ip))

    def _update_index(self, change: Callable[[], None]) -> None:
        """Writes a change of the store into the index; a damaged index is rebuilt, which includes the change."""
        try:
            change()
        except Damaged:
            self.read_all()


def _opened(folder: str, alive: Alive | None) -> Ledger:
    store = Store(folder)
    try:
        return Ledger(store, alive)
    except BaseException:
        store.close()
        raise


def open_ledger(folder: str, alive: Alive) -> Ledger:
    """Opens the ledger, and creates a missing folder. Raises IOFailure."""
    ledger = find_ledger(folder, alive)
    if ledger is not None:
        return ledger
    from cni.protocol import folders  # once in a network's life

    try:
        folders.make(folder, 0o755)
        return _opened(folder, alive)
    except OSError as error:
        raise disk_error(folder, error) from error


def find_ledger(folder: str, alive: Alive | None) -> Ledger | None:
    """Opens the ledger; returns None if the folder does not exist, and so no lease. Raises IOFailure."""
    try:
        return _opened(folder, alive)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_error(folder, error) from error
