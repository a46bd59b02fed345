"""The firewalld feature: a container's addresses are sources of a zone, whose rules are then theirs."""

from __future__ import annotations

from cni.protocol.address import Net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class ZoneSource(Record):
    """A container's `address` as a source of firewalld's zone."""

    zone: str
    address: Net

    def describe(self) -> str:
        return f"firewall-cmd --zone={self.zone} --add-source={self.address.text}"


def operations(zone: str, addresses: Iterable[Net]) -> tuple[ZoneSource, ...]:
    return tuple([ZoneSource(zone, Net(ip.ip, ip.ip.bits)) for ip in addresses])
