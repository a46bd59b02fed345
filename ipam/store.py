"""The lease folder on disk, in the reference's format, so that both programs may take turns on it.

`<dataDir>/<network>/` holds a file per leased address, `last_reserved_ip.<set>` and `lock` (host-local,
backend/disk/backend.go). Whoever reads or writes holds the lock, which the kernel releases with the process.

A lease appears whole or not at all (O_TMPFILE, then linkat). It is not fsynced: after a power loss no container of
its time lives, and what the loss tore is found empty or zeroed, and given back.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EINVAL, EISDIR, ELOOP, ENOENT, ENOSPC, ENXIO, EOPNOTSUPP
from fcntl import LOCK_EX
from time import time_ns

from cni.locks import take
from cni.protocol.address import IP, parse_ip
from cni.protocol.errors import IOFailure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a link leads elsewhere, a pipe has no end
NO_FILE = (ELOOP, EISDIR, ENXIO)  # what open(2) and read(2) say of links, folders and pipes
NO_TMPFILE = (EOPNOTSUPP, EISDIR, EINVAL, ENOENT)  # open(2): file systems and kernels without it; ENOENT: no /proc
LIMIT = 1 << 16  # bytes read of a lease: a container ID has no limit of its own


def disk_error(folder: str, error: OSError) -> IOFailure:
    return IOFailure(
        f"leases in {folder}: {error.strerror or error}",
        "ipam.dataDir must name a folder on a writable disk, which this user may write to",
    )


def _address_of(name: str) -> IP | None:
    """None for names that no lease has, as other spellings of an address."""
    try:
        ip = parse_ip(name)
    except ValueError:
        return None
    return ip if ip.text == name else None


class Store:
    """The folder of one network, open and locked until `close`. Methods raise OSError, the first one also TryAgain."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._lock = os.open("lock", os.O_RDONLY | os.O_CREAT | SAFELY, 0o600, dir_fd=self._folder)
        except OSError:
            os.close(self._folder)
            raise
        try:
            take(self._lock, LOCK_EX, f"{folder}/lock")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        _let_go(self._lock)
        _let_go(self._folder)

    def _read(self, name: str) -> bytes:
        file = os.open(name, os.O_RDONLY | SAFELY, dir_fd=self._folder)
        try:
            return os.read(file, LIMIT)
        finally:
            os.close(file)

    def read(self, ip: IP) -> bytes | None:
        """The content of a lease's file; None where there is none, or something that is no file."""
        try:
            return self._read(ip.text)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            return None

    def scan(self) -> Iterator[tuple[IP, bytes | None]]:
        """Address and content of all leases; None where the file cannot be read, and keeps its address."""
        for name in os.listdir(self._folder):
            ip = _address_of(name)
            if ip is None:
                continue
            try:
                yield ip, self._read(name)
            except FileNotFoundError:
                continue
            except OSError:
                yield ip, None

    def modified(self, ip: IP) -> int:
        """When the lease was written, in ns of the wall clock."""
        return os.stat(ip.text, dir_fd=self._folder, follow_symlinks=False).st_mtime_ns

    def create(self, ip: IP, content: bytes) -> bool:
        """False where the address is leased already."""
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
            _let_go(file)
            raise
        self._finish(file, name)

    def _write_new(self, name: str, content: bytes) -> bool:
        """As the reference does; killed in here it leaves an empty file, which the next scan gives back."""
        try:
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        except FileExistsError:
            return False
        try:
            _write(file, content)
        except OSError:
            _let_go(file)
            os.unlink(name, dir_fd=self._folder)
            raise
        self._finish(file, name)
        return True

    def _finish(self, file: int, name: str) -> None:
        """Some file systems (NFS) tell only here that a write failed."""
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
        """The address leased last in a set; None where unknown, which only restarts the round."""
        try:
            return _address_of(self._read(f"last_reserved_ip.{position}").decode("ascii", "replace"))
        except OSError:
            return None

    def set_last(self, position: int, ip: IP) -> None:
        """Written over and cut: after O_TRUNC ext4 would start writing to the disk at close (auto_da_alloc), for 1 ms.

        Killed between both, a wrong address stays, which moves the round.
        """
        content = ip.text.encode()
        file = os.open(f"last_reserved_ip.{position}", os.O_WRONLY | os.O_CREAT | SAFELY, 0o600, dir_fd=self._folder)
        try:
            _write(file, content)
            os.ftruncate(file, len(content))
        finally:
            os.close(file)

    def identity(self) -> str:
        """The same by whatever path the folder is named."""
        status = os.fstat(self._folder)
        return f"{status.st_dev} {status.st_ino}"

    def stamp(self) -> str:
        """Changes with every lease that comes or goes, whoever does it; see `sign`."""
        status = os.fstat(self._folder)
        return f"{status.st_mtime_ns} {status.st_ino}"

    def sign(self) -> str:
        """Give the folder a modification time that no other change can repeat, and return the stamp.

        The kernel writes the time of its last tick (1 to 10 ms), so changes within one tick look alike; a time
        between two ticks, set by us, is overwritten by whatever anyone changes afterwards. Empty where the file
        system cannot keep such a time.
        """
        now = time_ns()
        os.utime(self._folder, ns=(now, now))
        stamp = self.stamp()
        return stamp if stamp.startswith(f"{now} ") else ""


def _let_go(descriptor: int) -> None:
    """Close what nothing more depends on."""
    try:
        os.close(descriptor)
    except OSError:
        return


def _write(file: int, content: bytes) -> None:
    if os.write(file, content) != len(content):
        raise OSError(ENOSPC, os.strerror(ENOSPC))
