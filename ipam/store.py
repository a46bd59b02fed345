"""The lease folder on disk, in the reference's format: both programs may use it in turn.

`<dataDir>/<network>/` holds a file per leased address, `last_reserved_ip.<set>` and `lock` (host-local,
backend/disk/backend.go). Every reader and writer holds the lock, which the kernel releases with the process.

A lease is created atomically (O_TMPFILE, then linkat). It is not fsynced: after a power loss its container does not
exist, and a damaged file is found empty or zeroed, and released.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EINVAL, EISDIR, ELOOP, ENOENT, ENOSPC, ENXIO, EOPNOTSUPP
from fcntl import LOCK_EX
from time import time_ns

from cni.locks import acquire
from cni.protocol.address import IP, parse_ip
from cni.protocol.errors import IOFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # links are not followed, pipes not waited for
NO_FILE = (ELOOP, EISDIR, ENXIO)  # open(2) and read(2) of links, folders and pipes
NO_TMPFILE = (EOPNOTSUPP, EISDIR, EINVAL, ENOENT)  # open(2): file systems and kernels without it; ENOENT: no /proc
LIMIT = 1 << 16  # bytes read of a lease: a container ID has no limit of its own


def disk_error(folder: str, error: OSError) -> IOFailure:
    return IOFailure(
        f"leases in {folder}: {error.strerror or error}",
        "ipam.dataDir must name a folder on a writable disk, which this user may write to",
    )


def _address_of(name: str) -> IP | None:
    """Returns the address of a lease's file name; None for other names, also for other spellings of an address."""
    try:
        ip = parse_ip(name)
    except ValueError:
        return None
    return ip if ":" not in name or ip.text == name else None  # inet_pton(3) takes IPv4 in one spelling alone


class Store:
    """The folder of one network, open and locked until `close`. All methods raise OSError, `__init__` also TryAgain."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._lock = os.open("lock", os.O_RDONLY | os.O_CREAT | SAFELY, 0o600, dir_fd=self._folder)
        except OSError:
            os.close(self._folder)
            raise
        try:
            acquire(self._lock, LOCK_EX, f"{folder}/lock")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        _close(self._lock)
        _close(self._folder)

    def _read(self, name: str) -> bytes:
        file = os.open(name, os.O_RDONLY | SAFELY, dir_fd=self._folder)
        try:
            return os.read(file, LIMIT)
        finally:
            os.close(file)

    def _read_dated(self, name: str) -> tuple[bytes, int]:
        """Returns a file's content, and when it was written."""
        file = os.open(name, os.O_RDONLY | SAFELY, dir_fd=self._folder)
        try:
            return os.read(file, LIMIT), os.fstat(file).st_mtime_ns
        finally:
            os.close(file)

    def read(self, ip: IP) -> bytes | None:
        """Returns the content of a lease's file; None if there is none, or if it is not a regular file."""
        try:
            return self._read(ip.text)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            return None

    def scan(self) -> Iterator[tuple[IP, bytes | None, int]]:
        """Yields of all leases the address, the content, and when it was written, in ns of the wall clock. The content
        is None if the file cannot be read: its address stays leased.
        """
        for name in os.listdir(self._folder):
            ip = _address_of(name)
            if ip is None:
                continue
            try:
                content, modified = self._read_dated(name)
            except FileNotFoundError:
                continue
            except OSError:
                content, modified = None, 0
            yield ip, content, modified

    def create(self, ip: IP, content: bytes) -> bool:
        """Creates a lease; returns False if the address is leased already."""
        try:
            self._link(ip.text, content)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_TMPFILE:
                raise
            return self._write_new(ip.text, content)
        return True

    def _link(self, name: str, content: bytes) -> None:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        try:
            _write(file, content)
            # With dst_dir_fd Python calls linkat and not link, which would link the symbolic link in /proc itself.
            os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=self._folder, follow_symlinks=True)
        except OSError:
            _close(file)
            raise
        self._finish(file, name)

    def _write_new(self, name: str, content: bytes) -> bool:
        """Creates a lease like the reference; if killed, it leaves an empty file, which the next scan releases."""
        try:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        except FileExistsError:
            return False
        try:
            _write(file, content)
        except OSError:
            _close(file)
            os.unlink(name, dir_fd=self._folder)
            raise
        self._finish(file, name)
        return True

    def _finish(self, file: int, name: str) -> None:
        """Closes a new lease, whose write may fail only now (NFS)."""
        try:
            os.close(file)
        except OSError:
            os.unlink(name, dir_fd=self._folder)
            raise

    def remove(self, ip: IP) -> None:
        try:
            os.unlink(ip.text, dir_fd=self._folder)
        except FileNotFoundError:
            return

    def last(self, position: int) -> IP | None:
        """Returns the address leased last in a set; None if unknown: round robin starts again."""
        try:
            return _address_of(self._read(f"last_reserved_ip.{position}").decode("ascii", "replace"))
        except OSError:
            return None

    def set_last(self, position: int, ip: IP) -> None:
        """Overwrites and truncates the file: after O_TRUNC ext4 would write to disk at close (auto_da_alloc), for 1 ms.

        If killed between both, it leaves a wrong address, from which round robin continues.
        """
        content = ip.text.encode()
        file = os.open(f"last_reserved_ip.{position}", os.O_WRONLY | os.O_CREAT | SAFELY, 0o600, dir_fd=self._folder)
        try:
            _write(file, content)
            os.ftruncate(file, len(content))
        finally:
            os.close(file)

    def identity(self) -> str:
        """Returns a text that is the same for every path of the folder."""
        status = os.fstat(self._folder)
        return f"{status.st_dev} {status.st_ino}"

    def stamp(self) -> str:
        """Returns a text that changes with every created or removed lease, also of other programs; see `sign`."""
        status = os.fstat(self._folder)
        return f"{status.st_mtime_ns} {status.st_ino}"

    def sign(self) -> str:
        """Sets a modification time of the folder that no other change can repeat, and returns the stamp.

        The kernel writes the time of its last tick (1 to 10 ms), so that changes within one tick look alike; a time
        between two ticks, set here, is overwritten by every later change. The result is empty if the file system
        cannot store such a time.
        """
        now = time_ns()
        os.utime(self._folder, ns=(now, now))
        stamp = self.stamp()
        return stamp if stamp.startswith(f"{now} ") else ""


def _close(descriptor: int) -> None:
    """Closes a descriptor; errors do not matter any more."""
    try:
        os.close(descriptor)
    except OSError:
        return


def _write(file: int, content: bytes) -> None:
    if os.write(file, content) != len(content):
        raise OSError(ENOSPC, os.strerror(ENOSPC))
