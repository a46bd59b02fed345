"""An index of the lease folder: the addresses of an owner, and the free addresses.

It is a cache under /run, in pages, so that an answer costs the same for any number of leases: lines `KEY ADDRESS` in 16
pages by the first digit of the owner's key, and bitmaps of leased addresses, each as large as a page of memory. `stamp`
is that of the lease folder at the time of saving: if it differs, the index is not used. A page ends with its checksum:
if it is wrong, the lease folder is read again. If the folder of the index exists, podwire has read these leases since
the host started.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import ENOSPC, EPERM

from cni.protocol.owner import checksum, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.protocol.address import IP
    from ipam.store import Store

RUN = "/run/podwire/ipam"
DIGITS = "0123456789abcdef"
BITMAP = 1 << 15  # addresses in a bitmap: 4 KiB
FORMAT = "2"  # of the pages: a stamp of another format does not match
SUM_BYTES = 8
LARGEST = 1 << 26  # bytes of a page: many million leases
KIND, FOLDER, REGULAR, OTHERS_WRITE = 0o170000, 0o040000, 0o100000, 0o022  # inode(7)
FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Damaged(Exception):
    """A page is damaged: the lease folder has to be read again."""


def index_folder(identity: str) -> str:
    return f"{RUN}/{digest('leases', identity).hex()}"


def _bitmap(family: int, number: int) -> str:
    return f"taken{family}-{number:x}"


class Index:
    """The index. Pages are read at first use, and written by `save`. No method raises OSError; methods that need a page
    raise Damaged until the index is filled.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._pages: dict[str, bytearray] = {}
        self._changed: set[str] = set()
        self._cleared = False  # True: the pages on disk are ignored

    def exists(self) -> bool:
        try:
            os.stat(self.folder)
        except OSError:
            return False
        return True

    def matches(self, store: Store) -> bool:
        """True if the index was saved for the present leases."""
        try:
            return self._is_private() and self._read("stamp") == f"{FORMAT} {store.stamp()}".encode()
        except Damaged:
            return False

    def _is_private(self) -> bool:
        """True if no other user can have written a page."""
        try:
            status = os.stat(self.folder, follow_symlinks=False)
        except OSError:
            return False
        return status.st_mode & KIND == FOLDER and not status.st_mode & OTHERS_WRITE and status.st_uid == os.geteuid()

    def fill(self, entries: Iterable[tuple[str, IP]]) -> None:
        """Replaces all entries by these owners' keys, each with an address; the pages on disk are ignored."""
        owners: dict[str, list[str]] = {digit: [] for digit in DIGITS}
        bitmaps: dict[tuple[int, int], bytearray] = {}
        for key, ip in entries:
            owners[key[0]].append(f"{key} {ip.text}\n")
            number, bit = divmod(ip.value, BITMAP)
            place = ip.family, number
            if place not in bitmaps:
                bitmaps[place] = bytearray(BITMAP // 8)
            bitmaps[place][bit >> 3] |= 1 << (bit & 7)
        self._pages = {f"owners-{digit}": bytearray("".join(lines).encode()) for digit, lines in owners.items()}
        self._pages |= {_bitmap(*place): page for place, page in bitmaps.items()}
        self._changed = set(self._pages)
        self._cleared = True

    def _read(self, name: str) -> bytes | None:
        """Returns a page's content; None if there is no such page. Raises Damaged."""
        try:
            file = os.open(f"{self.folder}/{name}", os.O_RDONLY | FLAGS)
        except FileNotFoundError:
            return None
        except OSError:
            raise Damaged from None
        try:
            status = os.fstat(file)
            content = os.read(file, status.st_size) if status.st_size <= LARGEST else b""
        except OSError:
            raise Damaged from None
        finally:
            os.close(file)
        if status.st_mode & KIND != REGULAR or len(content) != status.st_size:
            raise Damaged
        return content

    def _page(self, name: str) -> bytearray | None:
        page = self._pages.get(name)
        if page is None and not self._cleared:
            content = self._read(name)
            if content is not None:
                page = bytearray(content[:-SUM_BYTES])
                if content[-SUM_BYTES:] != self._checksum(name, page):
                    raise Damaged
                self._pages[name] = page
        return page

    def _checksum(self, name: str, page: bytearray) -> bytes:
        return checksum(bytes(page), self.folder, name)

    def find(self, key: str) -> list[str] | None:
        """Returns the addresses of an owner; None if the page is missing (an index is saved with all pages)."""
        page = self._page(f"owners-{key[0]}")
        if page is None:
            return None
        prefix, addresses = f"{key} ".encode(), []
        start = page.find(prefix)
        while start >= 0:
            end = page.find(b"\n", start)
            addresses.append(page[start + len(prefix) : end].decode())
            start = page.find(prefix, end)
        return addresses

    def add(self, key: str, ip: IP) -> None:
        name = f"owners-{key[0]}"
        page = self._page(name)
        if page is not None:  # a missing page stays missing, so that `find` returns None
            page += f"{key} {ip.text}\n".encode()
            self._changed.add(name)
        self.mark(ip, leased=True)

    def discard(self, key: str, ip: IP) -> None:
        name = f"owners-{key[0]}"
        page = self._page(name)
        if page is not None:
            self._pages[name] = page.replace(f"{key} {ip.text}\n".encode(), b"")
            self._changed.add(name)
        self.mark(ip, leased=False)

    def mark(self, ip: IP, leased: bool) -> None:
        number, bit = divmod(ip.value, BITMAP)
        name = _bitmap(ip.family, number)
        page = self._page(name)
        if page is None:
            page = self._pages[name] = bytearray(BITMAP // 8)
        if leased:
            page[bit >> 3] |= 1 << (bit & 7)
        else:
            page[bit >> 3] &= ~(1 << (bit & 7))
        self._changed.add(name)

    def first_free(self, family: int, low: int, high: int) -> int | None:
        """Returns the lowest address from `low` to `high` without a lease; None if all are leased."""
        value = low
        while value <= high:
            number, bit = divmod(value, BITMAP)
            bits = int.from_bytes(self._page(_bitmap(family, number)) or b"", "little") >> bit
            value += ((bits + 1) & ~bits).bit_length() - 1  # over the run of ones at the lower end
            if value < (number + 1) * BITMAP:
                return value if value <= high else None
        return None

    def save(self, store: Store) -> None:
        """Writes the changed pages, and signs the lease folder last. After an error the next call rebuilds it."""
        if not self._changed:
            return
        try:
            if self._cleared:
                self._prepare_folder()
            self._write("stamp", b"")  # until all pages are written, the index does not match
            for name in self._changed:
                self._write(name, self._pages[name] + self._checksum(name, self._pages[name]))
            self._write("stamp", f"{FORMAT} {store.sign()}".encode())
        except OSError:  # /run is full or not writable: the index is only a cache
            return
        self._changed.clear()
        self._cleared = False

    def _prepare_folder(self) -> None:
        """Creates the folder, and removes old pages. Raises OSError, also if the folder belongs to another user."""
        for folder in (RUN.rpartition("/")[0], RUN, self.folder):
            _secure(folder)
        for name in os.listdir(self.folder):
            path = f"{self.folder}/{name}"
            try:
                os.unlink(path)
            except IsADirectoryError:
                os.rmdir(path)

    def _write(self, name: str, content: bytes | bytearray) -> None:
        file = os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | FLAGS, 0o600)
        try:
            if os.write(file, content) != len(content):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        finally:
            os.close(file)


def _secure(folder: str) -> None:
    """Creates a folder to which no other user can write, or changes the existing one. Raises OSError."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        status = os.stat(folder, follow_symlinks=False)
        if status.st_mode & KIND != FOLDER:
            raise
        if status.st_uid != os.geteuid():
            raise PermissionError(EPERM, "the folder belongs to another user") from None
        if status.st_mode & OTHERS_WRITE:
            os.chmod(folder, 0o700)
