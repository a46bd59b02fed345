"""flanneld's own rules, which nobody needs any more once podwired serves its network: they are removed.

flanneld makes them in tables of its own, or by iptables in chains of its own. Another flanneld of the node may have the
same names for another network, so a rule goes that names one of podwired's networks; table or chain go where no other
network's rule is left. What is in iptables' older part of the kernel is left to its program.
"""

from __future__ import annotations

import os
from errno import ENOENT
from typing import TYPE_CHECKING

from cni import proc
from cni.effects.iptables_legacy import PROGRAMS
from cni.kernel import nft, nft_rules
from cni.kernel.netlink import NetlinkError
from cni.kernel.nft import BE32, PROTOCOLS, Chain
from cni.protocol.address import IP, MULTICAST, Net, parse_net

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.effects.host import Host
    from cni.kernel.nft_rules import Rule
    from cni.kernel.rtnl import Message

TABLES = {4: "flannel-ipv4", 6: "flannel-ipv6"}
# By the table of iptables: flanneld's chain, the chain that leads there, and the comment of the rule that does.
CHAINS = {
    "nat": ("FLANNEL-POSTRTG", "POSTROUTING", "flanneld masq"),
    "filter": ("FLANNEL-FWD", "FORWARD", "flanneld forward"),
}
WAIT_SECONDS = "5"  # for others who change rules by iptables
NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET = 2, 3
MULTICASTS = {parse_net(text) for text in MULTICAST.values()}  # which pods' own address is kept for
NETWORK_HEADER = BE32.pack(nft_rules.NFT_PAYLOAD_NETWORK_HEADER)


def remove(host: Host, networks: Collection[Net]) -> list[str]:
    """Returns in words what was removed. Raises NetlinkError, OSError."""
    try:
        removed = _remove_tables(host, networks)
        for family in TABLES:
            for table in CHAINS:
                removed += _remove_chain(host, family, table, networks)
    except (NetlinkError, OSError) as error:
        if error.errno not in nft.NOT_FOUND_OR_EINVAL:
            raise
        removed = []
    for family in TABLES:
        for table in CHAINS:
            removed += _remove_legacy(family, table, networks)
    return removed


def _remove_tables(host: Host, networks: Collection[Net]) -> list[str]:
    """Removes the tables of both families: one that flanneld made and does not use goes with the other."""
    rules_by_family = {family: _rules(host, family, name) for family, name in TABLES.items()}
    if not any(_is_of(rule, family, networks) for family, rules in rules_by_family.items() for rule in rules):
        return []
    removed = []
    for family, rules in rules_by_family.items():
        protocol, table = PROTOCOLS[family], TABLES[family]
        theirs = [rule for rule in rules if _is_of(rule, family, networks)]
        if len(theirs) < len([rule for rule in rules if networks_of(rule, family)]):
            _change(host, [nft_rules.delete_rule(Chain(protocol, table, rule.chain), rule.handle) for rule in theirs])
        elif not _change(host, [nft_rules.delete_table(protocol, table)], ENOENT):
            continue
        removed.append(f"flanneld's rules in table {nft.FAMILY_NAMES[protocol]} {table}")
    return removed


def _remove_chain(host: Host, family: int, table: str, networks: Collection[Net]) -> list[str]:
    name, parent, _ = CHAINS[table]
    own, leading = Chain(PROTOCOLS[family], table, name), Chain(PROTOCOLS[family], table, parent)
    rules = _rules(host, family, table, name)
    theirs = [rule for rule in rules if _is_of(rule, family, networks)]
    if not theirs:
        return []
    if len(theirs) < len([rule for rule in rules if networks_of(rule, family)]):
        _change(host, [nft_rules.delete_rule(own, rule.handle) for rule in theirs])
    else:
        jumps = [rule for rule in _rules(host, family, table, parent) if rule.target == name]
        messages = [nft_rules.delete_rule(leading, rule.handle) for rule in jumps]
        messages += [nft_rules.delete_rule(own, rule.handle) for rule in rules]
        _change(host, [*messages, nft_rules.delete_chain(own)])
    return [f"flanneld's rules in chain {name} of table {own.table_text}"]


def _remove_legacy(family: int, table: str, networks: Collection[Net]) -> list[str]:
    """Runs the program of iptables-legacy, if there is one."""
    name, parent, comment = CHAINS[table]
    program = proc.find_system(PROGRAMS[family][1], os.environ) if _has_legacy(family, table) else None
    if program is None:
        return []

    def run(*arguments: str) -> proc.CompletedProcess:
        return proc.run([program, "-w", WAIT_SECONDS, "-t", table, *arguments], b"", {}, capture_stderr=True)

    listed = run("-S", name).stdout.decode("utf-8", "replace").splitlines()
    named = [line for line in listed if "/" in line.partition(" -m ")[0]]
    if not named or not all(any(f" {net.text}" in line for net in networks) for line in named):
        return []
    for arguments in (["-D", parent, "-m", "comment", "--comment", comment, "-j", name], ["-F", name], ["-X", name]):
        run(*arguments)
    return [f"flanneld's rules in chain {name} of table {table} of {PROGRAMS[family][1]}"]


def _has_legacy(family: int, table: str) -> bool:
    """Returns False if the file cannot be read, as in a user namespace."""
    try:
        with open(f"/proc/net/{PROGRAMS[family][0]}", encoding="ascii") as file:
            return table in file.read().split()
    except OSError:
        return False


def networks_of(rule: Rule, family: int) -> set[Net]:
    """Returns the networks that the rule compares addresses with, multicast left out."""
    networks, loaded, mask = set(), False, b""
    offsets = [BE32.pack(offset) for offset in (nft_rules.SOURCE[family], nft_rules.DESTINATION[family])]
    for name, data in rule.expressions:
        if name == "payload":
            loaded = data.get(NFTA_PAYLOAD_BASE) == NETWORK_HEADER and data.get(NFTA_PAYLOAD_OFFSET) in offsets
            mask = b""
        elif name == "bitwise":
            mask = nft_rules.value_of(data, nft_rules.NFTA_BITWISE_MASK)
        elif name == "cmp" and loaded:
            networks.add(_net(family, nft_rules.value_of(data, nft_rules.NFTA_CMP_DATA), mask))
    return networks - MULTICASTS


def _net(family: int, value: bytes, mask: bytes) -> Net:
    size = IP(family, 0).bits // 8
    prefix = int.from_bytes(mask, "big").bit_count() if mask else 8 * len(value)
    return Net(IP(family, int.from_bytes(value.ljust(size, b"\0"), "big")), prefix)


def _is_of(rule: Rule, family: int, networks: Collection[Net]) -> bool:
    return not networks_of(rule, family).isdisjoint(networks)


def _rules(host: Host, family: int, table: str, chain: str = "") -> list[Rule]:
    answers = host.netfilter.dump(*nft.rules_of(PROTOCOLS[family], table, chain))
    return [nft_rules.parse_rule(answer) for answer in answers]


def _change(host: Host, messages: list[Message], tolerated: int = 0) -> bool:
    """Sends all in one transaction; returns False if it was refused with the tolerated errno. Raises NetlinkError."""
    refusal = host.netfilter.batch(nft.transaction(messages))
    if refusal is not None and refusal.errno != tolerated:
        raise refusal
    return refusal is None
