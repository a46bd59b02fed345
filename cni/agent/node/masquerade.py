"""The agent's rules, in a table of its own that is made whole in one transaction, or not touched.

What they say is flannel's (pkg/trafficmngr): pods keep their source address among each other, and leave the cluster's
network with the node's. Connections that kube-proxy has marked are its own to masquerade.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from cni.agent.dataplane import tunnel_filter
from cni.effects import forward_accept, forward_rules, nft_load
from cni.effects.journal import Journal
from cni.kernel import nft, nft_rules, nft_ruleset
from cni.kernel.netlink import NetlinkError
from cni.plan import nftrule
from cni.plan.forward_accept import Accept
from cni.plan.nftrule import RETURN, SRCNAT, Chain, Hook, Masq, Match, Rule, Table
from cni.protocol.address import MULTICAST, parse_net
from cni.protocol.errors import OperationFailed, TryAgain
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.dataplane.tunnel_filter import Tunnel
    from cni.effects.host import Host
    from cni.kernel.rtnl import Message
    from cni.protocol.address import Net

KUBE_PROXY_MARK = 0x4000


class Rules(Record):
    """`spaces`: by family the network and this node's subnet of it. `forwards`: pods' traffic passes a firewall that
    drops what the host forwards. `tunnel`: the one whose packets are filtered, if any are.
    """

    table: str
    spaces: tuple[tuple[Net, Net], ...]
    masquerades: bool
    fully_random: bool
    forwards: bool
    tunnel: Tunnel | None = None


def table_of(rules: Rules) -> tuple[Table, list[str]]:
    """Returns the whole table, and the comments that its rules bear: a digest of all, so that those of others differ.

    Empty where nothing is needed.
    """
    chains = tunnel_filter.chains(rules.tunnel, rules.spaces) if rules.tunnel is not None else []
    sets = tunnel_filter.sets() if rules.tunnel is not None else ()
    masquerading = [rule for space in rules.spaces for rule in _masquerading(*space, rules) if rules.masquerades]
    if masquerading:
        chains.append(Chain("postrouting", tuple(masquerading), Hook("nat", "postrouting", SRCNAT)))
    table = Table("inet", rules.table, sets, tuple(chains))
    mark = blake2b("\n".join(nftrule.commands(table)).encode(), digest_size=6).hexdigest()
    comments: list[str] = []
    commented = []
    for chain in chains:
        own = [f"podwired {mark} {number}" for number in range(len(comments), len(comments) + len(chain.rules))]
        comments += own
        bearing = [rule._replace(comment=comment) for rule, comment in zip(chain.rules, own, strict=True)]
        commented.append(chain._replace(rules=tuple(bearing)))
    return table._replace(chains=tuple(commented)), comments


def _masquerading(network: Net, subnet: Net, rules: Rules) -> list[Rule]:
    ip = tunnel_filter.WORDS[network.family]
    masquerade = Masq(rules.fully_random)
    multicast = Match(f"{ip} daddr", parse_net(MULTICAST[network.family]), negated=True)
    marked = Match("meta mark", KUBE_PROXY_MARK, mask=KUBE_PROXY_MARK)
    from_pods, from_others = [Match(f"{ip} saddr", network, negated=negated) for negated in (False, True)]
    to_own, to_pods = Match(f"{ip} daddr", subnet), Match(f"{ip} daddr", network)
    return [
        Rule((Match("meta nfproto", f"ipv{network.family}"), marked, RETURN)),
        Rule((Match(f"{ip} saddr", subnet), to_pods, RETURN)),
        Rule((from_pods, to_own, RETURN)),
        Rule((from_others, to_own, RETURN)),
        Rule((from_pods, multicast, masquerade)),
        Rule((from_others, to_pods, masquerade)),
    ]


def ensure(host: Host, rules: Rules) -> list[str]:
    """Makes the table whole where it is not; returns what had to be done. Raises OperationFailed, NetlinkError."""
    table, comments = table_of(rules)
    if _present(host, rules.table) == comments:
        return []
    try:
        nft_load.send(host.netfilter, nft_ruleset.replace(table))
    except OSError as error:
        if error.errno not in nft.NOT_FOUND:
            raise
        raise OperationFailed(f"nftables: {nft_load.UNSUPPORTED}") from None
    return [f"table inet {rules.table} was incomplete"]


def ensure_forward_accept(host: Host, rules: Rules) -> list[str]:
    """Lets the network's traffic pass where a chain drops what the host forwards; returns what had to be done.

    Raises TryAgain while containers are being attached, NetlinkError.
    """
    op = Accept(tuple([network for network, _ in rules.spaces]), inbound=True)
    lacking = forward_accept.differs(host, op) if rules.forwards else ""
    if not lacking:
        return []
    if not host.lock.try_lock_exclusive():
        raise TryAgain(f"{lacking}: while containers are attached or detached, that has to wait")
    try:
        with Journal(host) as journal:
            forward_accept.apply(host, op, journal)
    finally:
        host.lock.release()
    return [lacking]


def _present(host: Host, table: str) -> list[str]:
    """The comments of the rules that are there."""
    answers = _asked(host, nft.rules_of(nft.NFPROTO_INET, table))
    return [rule.comment for rule in map(nft_rules.parse_rule, answers)]


def _asked(host: Host, question: tuple[int, bytes]) -> list[bytes]:
    """A kernel without nftables has nothing of it."""
    try:
        return host.netfilter.dump(*question)
    except (NetlinkError, OSError) as error:
        if error.errno not in nft.NOT_FOUND_OR_EINVAL:
            raise
        return []


def tables(host: Host) -> set[str]:
    """The tables of family inet."""
    chains = [nft.parse_chain(answer) for answer in _asked(host, nft.all_chains())]
    return {chain.table for chain in chains if chain.family == nft.NFPROTO_INET}


def remove_table(host: Host, table: str) -> None:
    """Removes the table, if it is there. Raises NetlinkError."""
    if table in tables(host):
        _change(host, nft_rules.delete_table(nft.NFPROTO_INET, table))


def remove(host: Host, table: str, networks: Iterable[Net]) -> None:
    """Removes the table, and the accept rules in other tables. Raises TryAgain, OperationFailed, NetlinkError."""
    remove_table(host, table)
    op = Accept(tuple(networks), inbound=True)
    for chain in forward_accept.well_known(op.families):
        forward_rules.remove(host, chain, op)
    for chain in forward_accept.well_known((4, 6)):
        forward_rules.remove_empty(host, chain)


def _change(host: Host, message: Message) -> None:
    refusal = host.netfilter.batch(nft.transaction([message]))
    if refusal is not None:
        raise refusal
