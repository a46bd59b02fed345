"""The administrator's chain: in the reference firewall plugin packets pass it before any rule accepts them."""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.plan.operations import Operation
    from cni.protocol.address import Net


class AdminChain(Record):
    """A jump from FORWARD to the chain of this name, if it exists, before all other rules. Shared by all containers, so
    DEL leaves it.
    """

    name: str
    families: tuple[int, ...]

    def describe(self) -> str:
        return f"where there is a chain {self.name}: iptables -I FORWARD -j {self.name}"


def operations(name: str, addresses: Iterable[Net]) -> tuple[Operation, ...]:
    families = tuple(sorted({address.family for address in addresses}))
    return (AdminChain(name, families),) if families else ()
