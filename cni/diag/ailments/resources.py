"""Resources of a node that are used up: tracked connections, disk, inodes; and its clock."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.node.sight import foreign_namespace
from cni.diag.output import duration
from cni.kernel import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

FOLDERS = ("/var/lib/cni", "/var/lib/cni/networks", "/run", "/run/podwire")  # that ADD writes to
NEARLY = 0.95
FUTURE_SECONDS = 3600.0
CONNECTIONS, LIMIT = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields what is used up, or nearly, then what is wrong with the clock."""
    used, limit = _number(CONNECTIONS), _number(LIMIT)
    if limit and used >= NEARLY * limit:
        yield Ailment(
            "conntrack-full",
            "connection tracking",
            f"{used} of {limit} connections",
            "packets of new connections are dropped (nf_conntrack: table full, dropping packet)",
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * limit}",
            "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max",
        )
    yield from _file_systems()
    yield from _clock(node)


def _clock(node: NodeView) -> Iterator[Ailment]:
    """Yields a clock that was set back: files of attachments and leases are from the future."""
    latest = max([each.since for each in node.attached], default=0.0)
    ahead = latest - time.time()
    if ahead > FUTURE_SECONDS:
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(latest))
        yield Ailment(
            "clock-behind",
            "the clock",
            f"an attachment was made at {moment}, in {duration(ahead)}",
            "certificates and tokens are not valid yet, and leases that leak are not released",
            "chronyc makestep, or timedatectl set-ntp true",
            "date -u; podwire ps",
        )


def _number(key: str) -> int:
    try:
        text = sysctl.read(key) or "0"
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


def _file_systems() -> Iterator[Ailment]:
    """Yields file systems that are read-only or full, each once. A container, as podwired's, has mounts of its own."""
    read_only, devices, is_host = set[str](), set[int](), not foreign_namespace()
    for folder in filter(os.path.isdir, FOLDERS):
        device, flags = os.stat(folder).st_dev, os.statvfs(folder).f_flag
        if flags & os.ST_RDONLY:
            if is_host and os.path.dirname(folder) not in read_only:
                yield Ailment(
                    "read-only",
                    folder,
                    "its file system is mounted read-only, as after an error of the disk",
                    "ADD and DEL fail: read-only file system",
                    "look for errors of the disk in the kernel's log, then remount it: mount -o remount,rw",
                    f"findmnt -T {folder}; dmesg",
                )
            read_only.add(folder)
        elif device not in devices:
            yield from _disk(folder)
        devices.add(device)


def _disk(folder: str) -> Iterator[Ailment]:
    try:
        status = os.statvfs(folder)
    except OSError:
        return
    # root's reserve counts, as plugins run as root
    for what, free, proof in (("disk", status.f_bfree, "df"), ("inodes", status.f_ffree, "df -i")):
        total = status.f_blocks if what == "disk" else status.f_files
        if total and not free:
            consequence = "ADD fails: no space left on device"
            remedy = f"remove files of that file system (du -xh {folder})" if what == "disk" else "remove files there"
            yield Ailment(f"no-{what}", folder, f"no {what} left", consequence, remedy, f"{proof} {folder}")
