"""The furniture of new namespaces: mounts that keep the real folders as they are, and a loopback interface."""

from __future__ import annotations

import ctypes
import os
import socket
from fcntl import ioctl
from struct import pack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

OVERLAYS = ("/etc", "/opt", "/var/lib")
EMPTY = ("/var/lib/cni", "/etc/cni", "/opt/cni")
SYSTEM_LOG = "/dev/log"
_LIBC = ctypes.CDLL(None, use_errno=True)
_MS_BIND, _MS_MOVE, _MS_REC = 0x1000, 0x2000, 0x4000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


def furnish(overlays: Iterable[str] = OVERLAYS, empty: Iterable[str] = EMPTY) -> None:
    """Mounts what belongs to the namespaces, and brings the loopback interface up. To be called inside of them.

    Folders that are written to are overlays, so the real ones stay as they are; those in `empty` have nothing in them.
    """
    _mount("proc", "/proc", "proc")
    _mount("tmpfs", "/run", "tmpfs")
    os.makedirs("/run/netns")
    os.mkdir("/run/.sysfs")
    _mount("sysfs", "/run/.sysfs", "sysfs")
    _mount("/sys/fs/cgroup", "/run/.sysfs/fs/cgroup", flags=_MS_BIND | _MS_REC)
    _mount("/run/.sysfs", "/sys", flags=_MS_MOVE)
    os.rmdir("/run/.sysfs")
    if os.path.exists(SYSTEM_LOG):
        _mount("/dev/null", SYSTEM_LOG, flags=_MS_BIND)  # no line of a test's is among those of the real host
    for folder in overlays:
        cover(folder)
    for folder in empty:
        os.makedirs(folder, exist_ok=True)
        _mount("tmpfs", folder, "tmpfs")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        ioctl(control, _SIOCSIFFLAGS, pack("16sH22x", b"lo", _IFF_UP))


def cover(folder: str) -> None:
    """Mounts an overlay on a folder: what is written to it is in memory, and the real one stays as it is."""
    upper, work = (f"/run/.overlay{folder}/{name}" for name in ("upper", "work"))
    os.makedirs(upper)
    os.makedirs(work)
    _mount("overlay", folder, "overlay", options=f"lowerdir={folder},upperdir={upper},workdir={work}")


def _mount(source: str, target: str, kind: str = "", *, flags: int = 0, options: str = "") -> None:
    if _LIBC.mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or source}: {os.strerror(number)}", target)
