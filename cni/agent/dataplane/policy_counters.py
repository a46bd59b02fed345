"""Counters of denied packets, read from the kernel's table of policies when somebody asks for metrics."""

from __future__ import annotations

from cni.agent.dataplane.policy_table import FAMILY
from cni.agent.policy.basetable import PENDING
from cni.agent.policy.denials import DENIED, DIRECTIONS
from cni.kernel import nft
from cni.kernel.netlink import NETLINK_NETFILTER, Interrupted, Netlink, NetlinkError
from cni.kernel.nft_rules import parse_rule
from cni.plan.policy import TABLE
from cni.protocol.errors import OperationFailed


def denied_packets() -> dict[str, int]:
    """Returns the number of denied packets by direction, since the table was made; nothing while the kernel does not
    tell. By a socket of its own: another thread calls this.
    """
    try:
        netfilter = Netlink(NETLINK_NETFILTER)
    except OSError:
        return {}
    try:
        return {direction.lower(): _packets(netfilter, suffix) for suffix, direction in DIRECTIONS.items()}
    except (NetlinkError, Interrupted, OperationFailed, OSError):
        return {}
    finally:
        netfilter.close()


def _packets(netfilter: Netlink, suffix: str) -> int:
    rules = [
        parse_rule(rule)
        for chain in (DENIED[suffix], PENDING[suffix])
        for rule in netfilter.dump(*nft.rules_of(FAMILY, TABLE, chain))
    ]
    return sum([rule.packets for rule in rules])
