"""podwire's objects in the kernel: tables, rules in other tables, interfaces without containers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.diag.belongings.belonging import INTERFACE, RULES, TABLE, Belonging
from cni.diag.path.tracing import TABLE as TRACE
from cni.effects.adminchain import COMMENT
from cni.effects.forward_accept import well_known
from cni.effects.forward_rules import change, rules
from cni.effects.host import node_identity
from cni.kernel import nft, nft_rules, nft_ruleset
from cni.kernel.netlink import NetlinkError
from cni.plan.forward_accept import CHAIN
from cni.plan.nftables import TABLE as OWN
from cni.protocol.owner import host_interface_of, label_keys, mac_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.effects.host import Host
    from cni.kernel.nft import Chain
    from cni.kernel.rtnl_parse import Link

FAMILIES = ("inet", "bridge")


def tables(host: Host) -> Iterator[Belonging]:
    """Yields podwire's tables; none in a kernel without nftables. Raises NetlinkError."""
    for name in (OWN, TRACE):
        for family in FAMILIES:
            if _exists(host, nft_ruleset.get_table(nft_ruleset.FAMILIES[family], name)):
                deletion = nft_rules.delete_table(nft_ruleset.FAMILIES[family], name)
                yield Belonging(TABLE, f"{family} {name}", partial(change, host, [deletion]))


def _exists(host: Host, question: tuple[int, int, bytes]) -> bool:
    try:
        host.nft.ask(*question)
    except (NetlinkError, OSError) as error:
        if error.errno in nft.NOT_FOUND_OR_EINVAL:
            return False
        raise
    return True


def foreign_rules(host: Host) -> Iterator[Belonging]:
    """Yields podwire's chain in each table whose chain FORWARD may drop, and its jump to the administrator's chain.

    Raises NetlinkError, OSError.
    """
    for forward in well_known((4, 6)):
        own = forward._replace(name=CHAIN)
        if forward.name == "FORWARD" and _exists(host, nft.get_chain(own)):
            yield Belonging(RULES, f"chain {CHAIN} of table {own.table_text}", partial(_remove_chain, host, own))
        if _exists(host, nft.get_chain(forward)) and _asked_first(host, forward):
            title = f'rule "{COMMENT}" in chain {forward.name} of table {forward.table_text}'
            yield Belonging(RULES, title, partial(change, host, _asked_first(host, forward)))


def _remove_chain(host: Host, own: Chain) -> None:
    jumps = [rule for rule in rules(host, own._replace(name="")) if rule.target == CHAIN]
    leaving = [nft_rules.delete_rule(own._replace(name=rule.chain), rule.handle) for rule in jumps]
    content = [nft_rules.delete_rule(own, rule.handle) for rule in rules(host, own)]
    change(host, [*leaving, *content, nft_rules.delete_chain(own)])


def _asked_first(host: Host, forward: Chain) -> list[tuple[int, int, bytes]]:
    """Returns the messages that delete podwire's jump to the administrator's chain."""
    own = [rule for rule in rules(host, forward) if rule.comment == COMMENT]
    return [nft_rules.delete_rule(forward, rule.handle) for rule in own]


def interfaces(host: Host) -> Iterator[Belonging]:
    """Yields what a container has left, and podwire's bridges without a port. Raises NetlinkError."""
    links, node = host.rtnl.links(), node_identity()
    names, masters = {link.name for link in links}, {link.master for link in links}
    for link in links:
        keys = label_keys(link.alias)
        is_remnant = keys is not None and host_interface_of(keys[1]) not in names
        if is_remnant or (_is_own_bridge(link, node) and link.ifindex not in masters):
            yield Belonging(INTERFACE, link.name, partial(host.rtnl.delete, link.name))


def _is_own_bridge(link: Link, node: str) -> bool:
    """Returns True for the MAC address that podwire gives a bridge: a hash of the node and its name."""
    return link.kind == "bridge" and link.mac == mac_of("bridge", node, link.name)
