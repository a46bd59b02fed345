"""One podwired of perhaps several on a node: its name, and its locks.

Two can run side by side if each has its own subnet file and VNI. Each lock is a file that only its owner can open; the
kernel releases it when the process ends.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from fcntl import LOCK_EX, LOCK_NB, flock
from hashlib import blake2b

from cni.agent.logs import log
from cni.kernel.hostlock import policy_lock
from cni.kernel.netns import OWN

NAME = "podwired"
USUAL_FILE = "/run/flannel/subnet.env"
FOLDER = "/run/podwire"
PATIENCE_SECONDS, PAUSE_SECONDS = 1.0, 0.05  # a process that was stopped may be at its last steps
NOTE_BYTES = 4096
NOTE = "subnet file "


class Occupied(Exception):
    """Another podwired has the subnet file or the VNI; the text names it."""


class Instance:
    """One agent, known by its subnet file. `name` is the name of its table and the alias of its devices."""

    def __init__(self, subnet_file: str) -> None:
        self.subnet_file = _real(subnet_file)
        self.name = _name(self.subnet_file)
        self.predecessor = ""  # the name of one that served the VNI before with another subnet file
        self._note = f"{NOTE}{self.subnet_file}"
        self._file: _Lock | None = None
        self._tunnel: _Lock | None = None
        self._vni: int | None = None
        self._policies: _Lock | None = None

    def begin(self) -> None:
        """Raises Occupied where another podwired has the subnet file."""
        folder, name = os.path.split(self.subnet_file)
        self._file = self._lock(
            os.path.join(folder, f".{name}.lock"),
            0o755,
            f"{self.subnet_file} is written by another podwired ({{}}): stop it, or choose another --subnet-file",
        )

    def serve(self, vni: int | None) -> None:
        """Raises Occupied where another podwired serves this VNI in the same network namespace; None: no tunnel."""
        if vni == self._vni:
            return
        lock = None
        if vni is not None:
            text = f"VNI {vni} is used by another podwired ({{}}): stop it, or give the networks different VNIs"
            lock = self._lock(os.path.join(FOLDER, f"{_front()}vni-{vni}.lock"), 0o700, text)
            earlier = lock.before.partition(NOTE)[2] if lock is not None else ""
            self.predecessor = _name(earlier) if earlier not in ("", self.subnet_file) else ""
        if self._tunnel is not None:
            self._tunnel.remove()
        self._tunnel, self._vni = lock, vni

    def hold_policies(self) -> None:
        """Raises Occupied where another podwired enforces policies in the same network namespace."""
        text = "NetworkPolicy is enforced by another podwired ({}): start one of them without --network-policy"
        self._policies = self._lock(os.path.join(FOLDER, policy_lock(os.stat(OWN).st_ino)), 0o700, text)

    def release_policies(self) -> None:
        """Lets another podwired enforce policies."""
        if self._policies is not None:
            self._policies.remove()
            self._policies = None

    def forget(self) -> None:
        """Removes the locks of this one, who has begun; for when it is not to come back."""
        with contextlib.suppress(OSError):
            for name in os.listdir(FOLDER):
                if name.startswith(_front()):
                    _Lock(os.path.join(FOLDER, name)).remove_if_free(self._note)
            os.rmdir(FOLDER)
        if self._file is not None:
            self._file.remove()

    def _lock(self, path: str, mode: int, text: str) -> _Lock | None:
        """Returns None if no lock file can be written: two agents that may conflict are better than none."""
        try:
            os.makedirs(os.path.dirname(path), mode, exist_ok=True)
            lock = _Lock(path)
            note = lock.take(f"pid {os.getpid()}, {self._note}")
        except OSError as error:
            log.warning("another podwired would not be noticed: %s: %s", path, error.strerror)
            return None
        if note is not None:
            raise Occupied(text.format(note))
        return lock


class _Lock:
    """A locked file of the user who runs the agent; the note in it names the process."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self.path = path
        self.before = ""  # the note of the process that held the lock before
        self._descriptor = _opened(path)

    def take(self, note: str) -> str | None:
        """Returns None, or the note of the process that holds the lock. Raises OSError."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not self._try():
            if time.monotonic() > end:
                return self._note or "its pid is not known yet"
            time.sleep(PAUSE_SECONDS)
        self.before = self._note
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, note.encode("utf-8", "surrogateescape"), 0)
        return None

    def _try(self) -> bool:
        """Returns False if another process holds the lock, or removed the file after it was opened."""
        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        mine = os.fstat(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            current = os.stat(self.path, follow_symlinks=False)
            if (mine.st_dev, mine.st_ino) == (current.st_dev, current.st_ino):
                return True
        os.close(self._descriptor)
        self._descriptor = _opened(self.path)
        return False

    @property
    def _note(self) -> str:
        return os.pread(self._descriptor, NOTE_BYTES, 0).decode("utf-8", "replace")

    def remove_if_free(self, note: str) -> None:
        """Removes the file if nobody holds the lock and its note ends so."""
        if self._try() and self._note.endswith(note):
            self.remove()
        else:
            os.close(self._descriptor)

    def remove(self) -> None:
        """Removes the file while it is locked, then lets go."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        os.close(self._descriptor)


def _opened(path: str) -> int:
    """A file of one's own that nobody else can open; another's in its place is removed. Raises OSError."""
    for _ in range(2):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077:
            return descriptor
        os.close(descriptor)
        os.unlink(path)
    raise PermissionError(1, "is another user's")


def _name(subnet_file: str) -> str:
    if subnet_file == _real(USUAL_FILE):
        return NAME
    return f"{NAME}-{blake2b(subnet_file.encode('utf-8', 'surrogateescape'), digest_size=4).hexdigest()}"


def _real(path: str) -> str:
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def _front() -> str:
    """Returns how the names of locks in this network namespace begin."""
    return f"{NAME}-{os.stat(OWN).st_ino}-"
