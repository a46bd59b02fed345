"""The check whether the host's firewall drops forwarded packets: every ADD makes it, hence in one datagram.

The rules to add then are in cni.effects.forward_rules, which is loaded only if it does, as on few hosts.
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
    """Returns the chains that podwire looks for, whatever their policy."""
    protocols = [NFPROTO_INET, *[PROTOCOLS[family] for family in families]]
    return [Chain(protocol, TABLE, name) for protocol in protocols for name in NAMES]


def dropping(host: Host, families: Iterable[int]) -> list[Chain]:
    """Returns the well-known chains that drop forwarded packets. Raises NetlinkError, OSError."""
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
    """Adds the rules; if the kernel rejects one, a warning says so and the container is attached all the same."""
    for chain in dropping(host, op.families):
        from cni.effects import forward_rules

        try:
            forward_rules.ensure(host, chain, op, journal)
        except NetlinkError as error:
            host.warn(f"{dropped(chain.name, chain.table_text)}; cannot add a rule there ({strerror(error.errno)})")


def release(host: Host, op: Accept) -> None:
    """Removes the rules of subnets of one address; those of a larger subnet serve its other containers too."""
    own = tuple([subnet for subnet in op.subnets if subnet.prefix == subnet.ip.bits])
    for chain in dropping(host, op.families) if own else ():
        from cni.effects import forward_rules

        forward_rules.remove(host, chain, op._replace(subnets=own))


def differs(host: Host, op: Accept) -> str:
    """Compares only where a chain drops: no other needs the rules."""
    for chain in dropping(host, op.families):
        from cni.effects import forward_rules

        if forward_rules.lacking(host, chain, op):
            return dropped(chain.name, chain.table_text)
    return ""


EFFECTS = {
    "Accept": Effect(apply, release, differs),
}
