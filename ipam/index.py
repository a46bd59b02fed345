"""What the lease folder says, ordered for questions: which addresses has an owner, which address is free.

A cache under /run, in pages so that an answer costs the same however many leases there are: lines `KEY ADDRESS` in
16 pages by the first digit of the owner's key, and bitmaps of leased addresses, each as large as a page of memory.
`stamp` is the lease folder's at the time of saving: where it differs now, nothing in here is believed. A page ends with
its checksum: where that is wrong, the lease folder is read anew. The existence of the index's folder says that podwire
has seen these leases since the machine started.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import ENOSPC, EPERM

from cni.protocol.owner import checksum, digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import IP
    from ipam.store import Store

RUN = "/run/podwire/ipam"
DIGITS = "0123456789abcdef"
BITMAP = 1 << 15  # addresses in a bitmap: 4 KiB
FORMAT = "2"  # of the pages: a stamp of another's is not believed
SUM_BYTES = 8
LARGEST = 1 << 26  # bytes of a page: many million leases
KIND, FOLDER, REGULAR, OTHERS_WRITE = 0o170000, 0o040000, 0o100000, 0o022  # inode(7)
FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Damaged(Exception):
    """A page is not as it was written: the lease folder has to be read anew."""


def index_folder(identity: str) -> str:
    return f"{RUN}/{digest('leases', identity).hex()}"


def _bitmap(family: int, number: int) -> str:
    return f"taken{family}-{number:x}"


class Index:
    """Pages are read when first asked for, and written by `save`. Nothing in here raises OSError; whatever asks for a
    page raises Damaged, until the index was cleared.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._pages: dict[str, bytearray] = {}
        self._changed: set[str] = set()
        self._alone = False  # what is on disk does not count

    def exists(self) -> bool:
        try:
            os.stat(self.folder)
        except OSError:
            return False
        return True

    def describes(self, store: Store) -> bool:
        try:
            return self._is_private() and self._read("stamp") == f"{FORMAT} {store.stamp()}".encode()
        except Damaged:
            return False

    def _is_private(self) -> bool:
        """Nobody else can have put a page there."""
        try:
            status = os.stat(self.folder, follow_symlinks=False)
        except OSError:
            return False
        return status.st_mode & KIND == FOLDER and not status.st_mode & OTHERS_WRITE and status.st_uid == os.geteuid()

    def clear(self) -> None:
        """Forget everything, what is on disk too."""
        self._alone = True
        self._pages = {f"owners-{digit}": bytearray() for digit in DIGITS}
        self._changed = set(self._pages)

    def _read(self, name: str) -> bytes | None:
        """None where there is no such page. Raises Damaged."""
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
        if page is None and not self._alone:
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
        """Addresses of an owner; None where the index has lost the page (every index is saved with all of them)."""
        page = self._page(f"owners-{key[0]}")
        if page is None:
            return None
        mark, found = f"{key} ".encode(), []
        at = page.find(mark)
        while at >= 0:
            end = page.find(b"\n", at)
            found.append(page[at + len(mark) : end].decode())
            at = page.find(mark, end)
        return found

    def add(self, key: str, ip: IP) -> None:
        name = f"owners-{key[0]}"
        page = self._page(name)
        if page is not None:  # a lost page stays lost, so that `find` says so
            page += f"{key} {ip.text}\n".encode()
            self._changed.add(name)
        self.mark(ip, taken=True)

    def discard(self, key: str, ip: IP) -> None:
        name = f"owners-{key[0]}"
        page = self._page(name)
        if page is not None:
            self._pages[name] = page.replace(f"{key} {ip.text}\n".encode(), b"")
            self._changed.add(name)
        self.mark(ip, taken=False)

    def mark(self, ip: IP, taken: bool) -> None:
        number, bit = divmod(ip.value, BITMAP)
        name = _bitmap(ip.family, number)
        page = self._page(name)
        if page is None:
            page = self._pages[name] = bytearray(BITMAP // 8)
        if taken:
            page[bit >> 3] |= 1 << (bit & 7)
        else:
            page[bit >> 3] &= ~(1 << (bit & 7))
        self._changed.add(name)

    def first_free(self, family: int, low: int, high: int) -> int | None:
        """The lowest address from low to high that no lease has; None where all are leased."""
        value = low
        while value <= high:
            number, bit = divmod(value, BITMAP)
            taken = int.from_bytes(self._page(_bitmap(family, number)) or b"", "little") >> bit
            value += ((taken + 1) & ~taken).bit_length() - 1  # over the run of ones at the lower end
            if value < (number + 1) * BITMAP:
                return value if value <= high else None
        return None

    def save(self, store: Store) -> None:
        """Sign the lease folder, last of all. Where this fails, the next call finds no index that it believes."""
        if not self._changed:
            return
        try:
            if self._alone:
                self._make_room()
            self._write("stamp", b"")  # until all of it is written, nothing is believed
            for name in self._changed:
                self._write(name, self._pages[name] + self._checksum(name, self._pages[name]))
            self._write("stamp", f"{FORMAT} {store.sign()}".encode())
        except OSError:  # /run is full or not ours: the leases themselves are what counts
            return
        self._changed.clear()
        self._alone = False

    def _make_room(self) -> None:
        """Raises OSError where the folder is another's."""
        for folder in (RUN.rpartition("/")[0], RUN, self.folder):
            _own(folder)
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
                raise OSError(ENOSPC, "no room for the index")
        finally:
            os.close(file)


def _own(folder: str) -> None:
    """Makes a folder, or what is there, such that nobody else can write to it. Raises OSError."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        status = os.stat(folder, follow_symlinks=False)
        if status.st_mode & KIND != FOLDER:
            raise
        if status.st_uid != os.geteuid():
            raise PermissionError(EPERM, "the folder is another user's") from None
        if status.st_mode & OTHERS_WRITE:
            os.chmod(folder, 0o700)
