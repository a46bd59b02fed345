"""The agent's rules, in a table of its own that is made whole in one transaction, or not touched.

What they say is flannel's (pkg/trafficmngr): pods keep their source address among each other, and leave the cluster's
network with the node's. Connections that kube-proxy has marked are its own to masquerade.
"""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING

from cni import proc
from cni.agent.dataplane import tunnel_filter
from cni.effects import forward_accept, forward_rules
from cni.effects.journal import Journal
from cni.kernel import nft, nft_rules
from cni.kernel.netlink import NetlinkError
from cni.plan.forward_accept import Accept
from cni.protocol.address import MULTICAST
from cni.protocol.errors import OperationFailed, TryAgain
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.dataplane.tunnel_filter import Tunnel
    from cni.effects.host import Host
    from cni.kernel.rtnl import Message
    from cni.protocol.address import Net

KUBE_PROXY_MARK = "0x4000"


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


def text_of(rules: Rules) -> tuple[str, list[str]]:
    """The whole table for nft, and the comments that its rules bear: what they are made of, so that others differ."""
    chains = tunnel_filter.chains(rules.tunnel, rules.spaces) if rules.tunnel is not None else {}
    if conditions := [line for space in rules.spaces for line in _masquerading(*space, rules) if rules.masquerades]:
        chains["postrouting"] = ("type nat hook postrouting priority srcnat; policy accept;", conditions)
    if not chains:
        return _removed(rules.table), []
    made_of = "\n".join([f"{name} {hook} {line}" for name, (hook, lines) in chains.items() for line in lines])
    mark = blake2b(made_of.encode(), digest_size=6).hexdigest()
    comments: list[str] = []
    text = [f"{_removed(rules.table)}table inet {rules.table} {{"]
    text += tunnel_filter.sets() if rules.tunnel is not None else []
    for name, (hook, lines) in chains.items():
        text += [f"  chain {name} {{", *([f"    {hook}"] if hook else [])]
        for line in lines:
            comments.append(f"podwired {mark} {len(comments)}")
            text.append(f'    {line} comment "{comments[-1]}"')
        text.append("  }")
    return "\n".join([*text, "}", ""]), comments


def _removed(table: str) -> str:
    return f"add table inet {table}\ndelete table inet {table}\n"  # nft 1.0.6 has no "destroy"


def _masquerading(network: Net, subnet: Net, rules: Rules) -> list[str]:
    ip, net, own = tunnel_filter.WORDS[network.family], network.text, subnet.text
    masquerade = "masquerade fully-random" if rules.fully_random else "masquerade"
    return [
        f"meta nfproto ipv{network.family} meta mark & {KUBE_PROXY_MARK} == {KUBE_PROXY_MARK} return",
        f"{ip} saddr {own} {ip} daddr {net} return",
        f"{ip} saddr {net} {ip} daddr {own} return",
        f"{ip} saddr != {net} {ip} daddr {own} return",
        f"{ip} saddr {net} {ip} daddr != {MULTICAST[network.family]} {masquerade}",
        f"{ip} saddr != {net} {ip} daddr {net} {masquerade}",
    ]


def ensure(host: Host, rules: Rules) -> list[str]:
    """Makes the table whole where it is not; returns what had to be done. Raises OperationFailed, NetlinkError."""
    text, comments = text_of(rules)
    if _present(host, rules.table) == comments:
        return []
    _load(text)
    return [f"table inet {rules.table} was not whole"]


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


def _load(text: str) -> None:
    program = proc.find_system("nft", os.environ)
    if program is None:
        raise OperationFailed("the program nft is missing: install nftables")
    ended = proc.run([program, "-f", "-"], text.encode(), {}, capture_stderr=True)
    if ended.status != 0:
        raise OperationFailed(f"nft refused the rules: {ended.stderr.decode('utf-8', 'replace').strip()}")
