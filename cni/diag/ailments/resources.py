"""Resources of a node that are used up: tracked connections, disk, inodes; and settings that others change."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.gateways import gateways
from cni.diag.node.attachments import PRESENT
from cni.kernel import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

FOLDERS = ("/var/lib/cni", "/run")
NEARLY = 0.95
CONNECTIONS, LIMIT = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields what is used up, or nearly."""
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
    for folder in FOLDERS:
        yield from _disk(folder)
    present = [each for each in node.attached if each.interface == PRESENT]
    configs = [config for each in present if each.kept is not None for config in each.kept.configs]
    forwards = any(4 in families for families in gateways(node, configs).values())
    if forwards and sysctl.read("net/ipv4/ip_forward") == "0":
        yield Ailment(
            "forwarding-off",
            "net.ipv4.ip_forward",
            "net.ipv4.ip_forward=0",
            "the node forwards nothing between pods and other hosts",
            "sysctl -w net.ipv4.ip_forward=1 (and look for what sets it to 0 in /etc/sysctl.d)",
            "sysctl net.ipv4.ip_forward",
        )


def _number(key: str) -> int:
    try:
        text = sysctl.read(key) or "0"
    except OSError:
        return 0
    return int(text) if text.isdecimal() else 0


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
            yield Ailment(f"no-{what}", folder, f"no {what} left", consequence, "remove files", f"{proof} {folder}")
