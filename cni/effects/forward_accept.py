"""Whether the host's firewall drops what it forwards: the question that every attaching asks, hence in one datagram.

What is to be done then is in cni.effects.forward_rules, entered where the answer is yes, as it is on few machines.
"""

from __future__ import annotations

from posix import strerror

from cni.effects import Effect
from cni.kernel import nft
from cni.kernel.netlink import NetlinkError
from cni.kernel.nft import NFPROTO_INET, PROTOCOLS, Chain
from cni.plan.forward_accept import dropped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.forward_accept import Accept

TABLE = "filter"
NAMES = ("FORWARD", "forward")  # iptables' (Docker, ufw), and what the examples of nftables use


def well_known(families: Iterable[int]) -> list[Chain]:
    """The chains that podwire looks for, whatever their policy."""
    protocols = [NFPROTO_INET, *[PROTOCOLS[family] for family in families]]
    return [Chain(protocol, TABLE, name) for protocol in protocols for name in NAMES]


def dropping(host: Host, families: Iterable[int]) -> list[Chain]:
    """Of the well-known chains those that drop what is forwarded. Raises NetlinkError, OSError."""
    try:
        answers = host.netfilter.ask_each([nft.get_chain(chain) for chain in well_known(families)])
    except OSError as error:
        if error.errno in nft.NOT_FOUND_OR_EINVAL:
            return []
        raise
    chains = []
    for answer in answers:
        if isinstance(answer, bytes):
            chains.append(nft.parse_chain(answer))
        elif answer.errno not in nft.NOT_FOUND_OR_EINVAL:
            raise answer
    return [chain for chain in chains if chain.drops_forwarded]


def apply(host: Host, op: Accept, journal: Journal) -> None:
    """A rule that the kernel refuses is no reason to refuse the container: people are told."""
    for chain in dropping(host, op.families):
        from cni.effects import forward_rules

        try:
            forward_rules.ensure(host, chain, op, journal)
        except NetlinkError as refused:
            host.warn(f"{dropped(chain.name, chain.table_text)}; podwire was refused it ({strerror(refused.errno)})")


def release(host: Host, op: Accept) -> None:
    """The rules of a subnet are its other containers' as well, unless it has room for this one alone."""
    alone = tuple([subnet for subnet in op.subnets if subnet.prefix == subnet.ip.bits])
    for chain in dropping(host, op.families) if alone else ():
        from cni.effects import forward_rules

        forward_rules.remove(host, chain, op._replace(subnets=alone))


def differs(host: Host, op: Accept) -> str:
    """Only a chain that drops needs the rules."""
    for chain in dropping(host, op.families):
        from cni.effects import forward_rules

        if forward_rules.lacking(host, chain, op):
            return dropped(chain.name, chain.table_text)
    return ""


EFFECTS = {
    "Accept": Effect(apply, release, differs),
}
