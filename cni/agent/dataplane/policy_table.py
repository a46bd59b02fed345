"""The table of NetworkPolicy in the kernel: what changes becomes the messages of one transaction.

Every rule's comment ends with a digest of the rule, by which a dump tells whether it is the desired one.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from cni.agent.dataplane.policy_dump import Expected, read_table
from cni.agent.logs import log
from cni.agent.policy.basetable import IPVS_LINK, base_table
from cni.agent.policy.desired import (
    AddElements,
    AddSet,
    AddVerdicts,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    SetRules,
    difference,
)
from cni.effects import nft_load
from cni.kernel import nft, nft_keys, nft_rules, nft_ruleset, rtnl, rtnl_parse
from cni.kernel.netlink import NetlinkError
from cni.kernel.nft_ruleset import Step
from cni.plan.nftrule import Chain, Table
from cni.plan.policy import TABLE
from cni.protocol.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from cni.agent.policy.basetable import TableOptions
    from cni.agent.policy.blocks import Span
    from cni.agent.policy.desired import Change, DesiredTable
    from cni.effects.host import Host
    from cni.kernel.netlink import Netlink
    from cni.kernel.nft import SetRef
    from cni.kernel.rtnl import Message
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.plan.nftrule import Rule

FAMILY = nft.NFPROTO_INET
TITLE = f"inet {TABLE}"
TRIAL = f"{TABLE}-trial"  # is never there
STANDBY = f"{TABLE}-standby"  # is there while the table is recreated

Item = TypeVar("Item")


class PolicyTable:
    """The table over a socket of nfnetlink."""

    def __init__(self, netfilter: Netlink, options: TableOptions) -> None:
        self._netfilter, self._options = netfilter, options
        self._base = _marked_base(options)

    def is_outdated_by(self, notifications: Iterable[tuple[int, bytes]]) -> bool:
        """True if a link of these came for which the base table has to be another. Raises Malformed."""
        links = [payload for kind, payload in notifications if kind == rtnl.RTM_NEWLINK and not self._options.ipvs]
        return any(rtnl_parse.parse_link(payload).name == IPVS_LINK for payload in links)

    def adapt_to(self, links: RtnlSocket) -> None:
        """Makes `audit` expect IPVS once there is its interface, until the agent is restarted. Raises NetlinkError."""
        if not self._options.ipvs and links.find(IPVS_LINK) is not None:
            self._options = self._options._replace(ipvs=True)
            self._base = _marked_base(self._options)
            log.info("NetworkPolicy: services are forwarded by IPVS (%s)", IPVS_LINK)

    def apply(self, changes: Sequence[Change]) -> None:
        """Makes the changes, all or none. Raises OperationFailed, NetlinkError, OSError."""
        nft_load.send(self._netfilter, steps_of(changes))

    def audit(self, desired: DesiredTable, pending: Container[bytes] = (), judged: Container[bytes] = ()) -> str:
        """Makes the table what it has to be where it is not, in one transaction; returns how it differed. Addresses
        that are pending, but of which the agent has not heard (see Expected), are left to the event that tells of them.

        Raises OperationFailed, NetlinkError, Interrupted, OSError.
        """
        if _has(self._netfilter, STANDBY):
            _delete(self._netfilter, STANDBY)
        whole = self._whole(desired)
        wanted = Expected(desired, {chain.name: chain for chain in whole.chains}, pending, judged)
        actual = read_table(self._netfilter, self._base, wanted)
        if isinstance(actual, str):
            self._recreate(whole, desired)
            return actual
        changes = difference(actual, desired)
        if not changes:
            return ""
        try:
            self.apply(changes)
        except (OperationFailed, NetlinkError):  # by what others have put into it
            self._recreate(whole, desired)
        return f"{len(changes)} parts differed"

    def _recreate(self, whole: Table, desired: DesiredTable) -> None:
        """Replaces the table, if it is there, while a copy of the new one judges packets as well.

        The kernel calls new base chains before the old ones, and before their rules are valid; with these the rules of
        the old ones end (nf_tables_commit, net/netfilter/nf_tables_api.c). Between the two a packet would meet none.
        """
        has_standby = _has(self._netfilter, TABLE)
        if has_standby:
            standby = whole._replace(name=STANDBY)
            nft_load.send(self._netfilter, nft_ruleset.replace(standby) + _contents(desired, STANDBY))
        try:
            nft_load.send(self._netfilter, nft_ruleset.replace(whole) + _contents(desired))
        finally:  # where the kernel refuses it, the old table stays, and nobody would add new pods to the copy
            if has_standby:
                _delete(self._netfilter, STANDBY)

    def _whole(self, desired: DesiredTable) -> Table:
        own = {chain.name for chain in self._base.chains}
        chains = [
            marked(chain.name, desired.chains[chain.name]) if chain.name in desired.chains else chain
            for chain in self._base.chains
        ]
        chains += [marked(name, rules) for name, rules in desired.chains.items() if name not in own]
        return self._base._replace(sets=(*self._base.sets, *desired.sets.values()), chains=tuple(chains))


def is_present(host: Host) -> bool:
    """Returns False as well where the kernel has no nftables. Raises NetlinkError, OSError."""
    try:
        return _has(host.netfilter, TABLE)
    except (NetlinkError, OSError) as error:
        if error.errno not in nft.NOT_FOUND_OR_EINVAL:
            raise
        return False


def _has(netfilter: Netlink, table: str) -> bool:
    (answer,) = netfilter.ask_each([nft_ruleset.get_table(FAMILY, table)])
    if not isinstance(answer, NetlinkError):
        return True
    if answer.errno not in nft.NOT_FOUND_OR_EINVAL:
        raise answer
    return False


def is_supported(netfilter: Netlink, rule: Rule) -> bool:
    """Returns False if the kernel refuses a rule. Nothing is changed: the transaction ends with what cannot be done.

    Raises OSError.
    """
    step = _refused(netfilter, Table("inet", TRIAL, (), (Chain("trial", (rule,)),)))
    return step is None or step.rule is None


def lack_of(netfilter: Netlink, table: Table) -> str:
    """Returns the part of a table that the kernel refuses, with the module for it; empty if it takes all. Nothing is
    changed. Raises OSError.
    """
    step = _refused(netfilter, table._replace(name=TRIAL))
    return "" if step is None else f"{step.title} (load the module {step.module or 'nf_tables'})"


def _refused(netfilter: Netlink, table: Table) -> Step | None:
    """Returns the step that the kernel refuses of those that create a table."""
    steps = nft_ruleset.create(table)
    impossible = nft_rules.delete_chain(nft.Chain(FAMILY, TRIAL, "none"))
    refusal = netfilter.batch(nft.transaction([*[step.message for step in steps], impossible]))
    refused = refusal.position - 1 if refusal is not None else len(steps)  # the first message begins the batch
    return steps[refused] if 0 <= refused < len(steps) else None


def remove(netfilter: Netlink) -> None:
    """Removes the table with all that is in it, if it is there. Raises OperationFailed, NetlinkError, OSError."""
    _delete(netfilter, TABLE, STANDBY)


def _delete(netfilter: Netlink, *tables: str) -> None:
    nft_load.send(netfilter, [step for name in tables for step in nft_ruleset.replace(Table("inet", name))])


def steps_of(changes: Iterable[Change]) -> list[Step]:
    """Returns the messages for changes, in an order that the kernel takes."""
    changes = list(changes)
    old = {change.name for change in changes if isinstance(change, DeleteChain)}
    sets = tuple([change.definition for change in changes if isinstance(change, AddSet)])
    chains = [
        marked(change.chain, change.rules)
        for change in changes
        if isinstance(change, SetRules) and change.chain not in old
    ]
    steps = nft_ruleset.create(Table("inet", TABLE, sets, tuple(chains)))[1:] if sets or chains else []
    for change in changes:
        if isinstance(change, SetRules) and change.chain in old:
            steps.append(_step(nft_ruleset.flush_chain(FAMILY, TABLE, change.chain), "chain", change.chain))
        else:
            steps += _steps_of(change)
    return steps


def _steps_of(change: Change) -> Iterator[Step]:
    match change:
        case AddSet(definition, spans):
            yield from _spans(_set_ref(definition.name), spans)
        case AddElements(name, keys):
            yield from _elements(_set_ref(name), keys, nft_keys.add_keys)
        case DeleteElements(name, keys):
            yield from _elements(_set_ref(name), keys, nft_keys.delete_keys)
        case AddVerdicts(name, chains):
            yield from _verdicts(_set_ref(name), chains)
        case DeleteChain(name):
            yield _step(nft_rules.delete_chain(nft.Chain(FAMILY, TABLE, name)), "chain", name)
        case DeleteSet(name):
            yield _step(nft_ruleset.delete_set(_set_ref(name)), "set", name)
        case _:  # AddChain and SetRules: created with the sets
            pass


def _contents(desired: DesiredTable, table: str = TABLE) -> list[Step]:
    steps = [step for name, spans in desired.spans.items() for step in _spans(_set_ref(name, table), spans)]
    for name, keys in desired.elements.items():
        steps += _elements(_set_ref(name, table), keys, nft_keys.add_keys)
    for name, chains in desired.verdicts.items():
        steps += _verdicts(_set_ref(name, table), tuple(chains.items()))
    return steps


def _spans(set_ref: SetRef, spans: Iterable[Span]) -> Iterator[Step]:
    for message in nft_ruleset.add_intervals(set_ref, spans):
        yield _step(message, "elements of", set_ref.name)


def _elements(
    set_ref: SetRef, keys: Iterable[bytes], message: Callable[[SetRef, Iterable[bytes]], Message]
) -> Iterator[Step]:
    for part in _parts(keys, nft_keys.AT_A_TIME):
        yield _step(message(set_ref, part), "elements of", set_ref.name)


def _verdicts(set_ref: SetRef, chains: Iterable[tuple[bytes, str]]) -> Iterator[Step]:
    for part in _parts(chains, nft_keys.VERDICTS_AT_A_TIME):
        yield _step(nft_keys.add_verdicts(set_ref, part), "map", set_ref.name)


def _parts(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while part := [*islice(rest, size)]:
        yield part


def _set_ref(name: str, table: str = TABLE) -> SetRef:
    return nft.SetRef(FAMILY, table, name)


def _step(message: Message, kind: str, name: str) -> Step:
    return Step(message, f"{kind} {TITLE} {name}")


def marked(name: str, rules: Iterable[Rule], chain: Chain | None = None) -> Chain:
    """Returns the chain with rules whose comments end with their digests."""
    marked = []
    for rule in rules:
        digest = blake2b(rule.text.encode(), digest_size=4).hexdigest()
        marked.append(rule._replace(comment=f"{rule.comment} {digest}".lstrip()))
    return Chain(name, tuple(marked), chain.hook if chain is not None else None)


def _marked_base(options: TableOptions) -> Table:
    base = base_table(options)
    return base._replace(chains=tuple([marked(chain.name, chain.rules, chain) for chain in base.chains]))
