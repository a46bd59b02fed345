"""The lock on a host's network namespace: shared by all calls that attach or detach there.

A file that others can open is not a lock, since flock(2) needs no permission: any user could hold it. So it is root's
alone, below /run; the namespace's inode chooses one of 256 files, so that their number is bounded. Two namespaces with
the same file only wait for each other.

If /run belongs to another user (in a user namespace) or is read-only, a sysctl of the namespace itself, which only its
root may open, replaces the file.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EPERM
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock

from cni import locks
from cni.protocol.errors import OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.netns import Netns

RUN = "/run/podwire"
FILES = 256
SETTING = "/proc/sys/net/ipv4/tcp_fastopen_key"  # 0600 (kernel net/ipv4/sysctl_net_ipv4.c)
KIND, FOLDER, REGULAR = 0o170000, 0o040000, 0o100000  # inode(7)
OTHERS, OTHERS_WRITE = 0o077, 0o022


class HostLock:
    """A lock whose sole holder may undo what attachments share. The file is opened at first use."""

    def __init__(self, host: Netns) -> None:
        self._host = host
        self._descriptor = -1
        self._name = ""

    def lock_shared(self) -> None:
        """Takes the lock shared. Raises TryAgain, OperationFailed."""
        self._take(LOCK_SH)

    def lock_exclusive(self) -> None:
        """Waits until no other process holds it; a conversion releases it in between (flock(2)).

        Raises TryAgain, OperationFailed.
        """
        self._take(LOCK_EX)

    def release(self) -> None:
        """Unlocks and closes the file; the next use opens it again, since it may have been removed meanwhile."""
        if self._descriptor >= 0:
            flock(self._descriptor, LOCK_UN)
            self.close()

    def try_lock_exclusive(self) -> bool:
        """Takes the lock if no other process holds it; returns True if so. Raises OperationFailed."""
        try:
            flock(self._opened(), LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _take(self, how: int) -> None:
        locks.acquire(self._opened(), how, self._name)

    def _opened(self) -> int:
        if self._descriptor < 0:
            status = os.fstat(self._host.descriptor)
            self._name = file_of(status.st_dev, status.st_ino)
            try:
                self._descriptor = open_of_root(self._name, os.O_RDONLY | os.O_CREAT | os.O_NONBLOCK)
            except OSError as error:
                self._descriptor = _open_setting(f"{self._name}: {error.strerror}")
                self._name = SETTING
        return self._descriptor


def file_of(device: int, inode: int) -> str:
    """Returns the file of a namespace; device and inode are unique among existing ones."""
    return f"{RUN}/lock-{(inode ^ device) % FILES:02x}"


def policy_lock(inode: int) -> str:
    """Returns the name of the file that podwired locks while it enforces NetworkPolicy in a namespace."""
    return f"podwired-{inode}-policy.lock"


def open_of_root(name: str, flags: int) -> int:
    """Opens a file in RUN, which is made. Raises OSError if the file or its folder is not root's alone."""
    try:
        folder = os.stat(RUN, follow_symlinks=False)
    except FileNotFoundError:
        _make_folder()
        folder = os.stat(RUN, follow_symlinks=False)
    if folder.st_mode & KIND != FOLDER or folder.st_uid != 0 or folder.st_mode & OTHERS_WRITE:
        raise PermissionError(EPERM, "the folder is not root's alone")
    return _private(os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), regular_of_root=True)


def _make_folder() -> None:
    try:
        os.mkdir(RUN, 0o700)
    except FileExistsError:
        return


def _open_setting(reason: str) -> int:
    try:
        return _private(os.open(SETTING, os.O_RDONLY | os.O_CLOEXEC), regular_of_root=False)
    except OSError as error:
        raise OperationFailed(
            f"no lock for the host's network namespace: {reason}; {SETTING}: {error.strerror} (is /run writable?)"
        ) from None


def _private(descriptor: int, *, regular_of_root: bool) -> int:
    """Returns the descriptor if only the file's owner may open it. Raises PermissionError."""
    status = os.fstat(descriptor)
    foreign = regular_of_root and (status.st_uid != 0 or status.st_mode & KIND != REGULAR)
    if foreign or status.st_mode & OTHERS:
        os.close(descriptor)
        raise PermissionError(EPERM, "the file is not root's alone")
    return descriptor
