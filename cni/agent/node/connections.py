"""Reads how full the kernel's table of tracked connections is; nothing where the kernel tracks none."""

from __future__ import annotations

from cni.kernel import sysctl

ENTRIES, LIMIT = "net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"


def entries() -> dict[tuple[str, ...], float]:
    return _number(ENTRIES)


def limit() -> dict[tuple[str, ...], float]:
    return _number(LIMIT)


def _number(key: str) -> dict[tuple[str, ...], float]:
    """Returns the number of a sysctl as a metric without labels."""
    try:
        value = sysctl.read(key)
    except OSError:
        return {}
    return {(): int(value)} if value else {}
