"""`vlanTrunk`: the tagged VLANs of a bridge's port."""

from __future__ import annotations

from cni.config.netconf import VLAN_LIMIT
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.fields import Fields


class VlanRange(Record):
    """VLAN identifiers from first to last, both included."""

    first: int
    last: int


def parse_trunk(trunk: list[Fields]) -> tuple[VlanRange, ...]:
    """Returns the ranges; an invalid one is an error."""
    ranges = []
    for item in trunk:
        single, first, last = (item.optional_integer(key, 1, VLAN_LIMIT) for key in ("id", "minID", "maxID"))
        if single is not None:
            ranges.append(VlanRange(single, single))
        if first is not None and last is not None:
            ranges.append(VlanRange(first, last))
            if first > last:
                item.error("minID", "is greater than maxID in trunk parameter")
        elif first is not None or last is not None:
            absent = "maxID" if last is None else "minID"
            item.error(absent, f"minID and maxID should be configured simultaneously, {absent} is missing")
        elif single is None:
            item.error("id", "a trunk needs id, or minID and maxID")
    return tuple(ranges)
