"""Arithmetic of address ranges: ipBlocks without their excepts, as spans that do not overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.plan.nftrule import merged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.policy.objects import IpBlock
    from cni.protocol.address import Net

    Span = tuple[bytes, bytes]  # the first and the last address
    Interval = tuple[int, int]


def spans_of(blocks: Iterable[IpBlock]) -> tuple[Span, ...]:
    """Returns the addresses that any of the blocks has, all of one family, in order."""
    intervals, bits = [], 0
    for block in blocks:
        bits = block.net.ip.bits
        intervals += _without(_interval(block.net), [_interval(part) for part in block.excepts])
    size = bits // 8
    return tuple([(first.to_bytes(size, "big"), last.to_bytes(size, "big")) for first, last in merged(intervals)])


def _interval(net: Net) -> Interval:
    return net.network.ip.value, net.last.value


def _without(whole: Interval, excepts: list[Interval]) -> list[Interval]:
    """Returns what is left of an interval, of which every except is a part."""
    intervals = []
    position, end = whole
    for first, last in merged(excepts):
        if position < first:
            intervals.append((position, first - 1))
        position = last + 1
    if position <= end:
        intervals.append((position, end))
    return intervals
