"""The accept feature: if the host's firewall drops forwarded packets, the containers' traffic is accepted.

An accept in podwire's own table would not do: the packet still meets the other chain, whose drop is final
(nftables(8), verdict statements). So podwire's rules go into the table of the chain that drops.
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.plan.operations import Operation
    from cni.protocol.address import Net

CHAIN = "PODWIRE-FORWARD"
FIREWALLD_REMEDY = (
    "firewall-cmd --zone=trusted --add-source=SUBNET lets the containers' subnets pass (with --permanent also after a"
    " reload), and so does the plugin firewall, chained behind"
)
UFW_REMEDY = "ufw route allow from SUBNET and ufw route allow to SUBNET, or ufw default allow routed"
JUMP = "podwire containers"  # the comment of the rule that leads there


class Accept(Record):
    """Accept rules. The containers of a subnet share them, so DEL keeps them, unless the subnet is one address.

    `inbound`: new connections to the containers are accepted as well, otherwise only replies and connections
    through a host port.
    """

    subnets: tuple[Net, ...]
    inbound: bool

    @property
    def families(self) -> tuple[int, ...]:
        return tuple(sorted({subnet.family for subnet in self.subnets}))

    def describe(self) -> str:
        subnets = ", ".join([subnet.text for subnet in self.subnets])
        into = "" if self.inbound else " and answers to it"
        return f"where chain FORWARD drops: nft add rule ip filter {CHAIN} accept {subnets}{into}"


def operations(addresses: Iterable[Net], *, inbound: bool) -> tuple[Operation, ...]:
    subnets = tuple(sorted({address.network for address in addresses}))
    return (Accept(subnets, inbound),) if subnets else ()


def rejected(chain: str, table: str, by: str) -> str:
    """Returns the message about a chain that rejects all packets, `by` the last rule of this chain or of another that
    it leads to; `table` with its family.
    """
    remedy = FIREWALLD_REMEDY if table.endswith(" firewalld") else "accept traffic of the containers before it"
    remedy = UFW_REMEDY if by.startswith("ufw-") else remedy
    rule = "its last rule" if by == chain else f"by chain {by}"
    return f"chain {chain} of table {table} rejects what is forwarded ({rule}): {remedy}"


def dropped(chain: str, table: str) -> str:
    """Returns the message about a chain with policy drop; `table` with its family."""
    return (
        f"chain {chain} of table {table} drops what is forwarded (policy drop):"
        " accept traffic of the containers there, or set its policy to accept"
    )
