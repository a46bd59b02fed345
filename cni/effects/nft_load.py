"""Loads missing rules into podwire's tables: all of a part in one transaction of messages. Its modules are loaded for
that alone, by the first ADD after boot or after somebody's flush.

nft is executed for one thing: conditions of ports are a user's nft expressions.
"""

from __future__ import annotations

from errno import ENOENT

from cni import proc
from cni.kernel import nft, nft_rules, nft_ruleset
from cni.kernel.netlink import NLM_F_EXCL, NetlinkError
from cni.kernel.nft import SetRef
from cni.plan import nftrule
from cni.plan.nftrule import Chain, NamedSet, Table
from cni.protocol.errors import OperationFailed
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.netlink import Netlink
    from cni.kernel.nft import Element
    from cni.kernel.nft_ruleset import Step
    from cni.kernel.rtnl import Message
    from cni.plan.nftables import RulesetFragment

UNSUPPORTED = "not supported by the kernel (load the module nf_tables)"


class _Before(Record):
    """The state before a part was loaded: its chains without rules, its chains and sets that were missing; `bare` if
    there was no table.
    """

    bare: bool
    empty: tuple[str, ...]
    chains: tuple[Chain, ...]
    sets: tuple[NamedSet, ...]


def load(host: Host, part: RulesetFragment, lost: Iterable[tuple[SetRef, Element]], journal: Journal) -> None:
    """Loads a part, with elements that were lost; its undo leaves other parts. Raises OperationFailed, NetlinkError."""
    if not host.nft.is_in_kernel:
        raise OperationFailed(f"nftables: {UNSUPPORTED}")
    table = part.content()
    before = _before(host, table, host.nft.chains(part.table))
    journal.add_shared(lambda: _restore(host, table, before))
    conditional = tuple([chain for chain in table.chains if any(rule.needs_nft for rule in chain.rules)])
    chains = tuple([chain for chain in table.chains if chain not in conditional])
    restored = [nft_ruleset.Step(_restored(*owned), f"element of {owned[0].name}: {owned[1].label}") for owned in lost]
    send(host.nft, [*nft_ruleset.create(table._replace(chains=chains)), *restored])
    if conditional:
        _load_conditions(host, table._replace(sets=(), chains=conditional))


def send(socket: Netlink, steps: list[Step]) -> None:
    """Sends a transaction. Raises OperationFailed where the kernel lacks what a step needs, or else NetlinkError; both
    name the object.
    """
    refusal = socket.batch(nft.transaction([step.message for step in steps]))
    if refusal is None:
        return
    position = refusal.position - 1  # the first message begins the batch
    if not 0 <= position < len(steps):
        if refusal.errno in nft.NOT_FOUND_OR_EINVAL:
            raise OperationFailed(f"nftables: {UNSUPPORTED}")
        raise refusal
    step = steps[position]
    if step.module and refusal.errno in nft.NOT_FOUND:
        raise OperationFailed(f"{step.title}: not supported by the kernel (load the module {step.module})")
    raise NetlinkError(refusal.errno, ": ".join([*([refusal.text] if refusal.text else []), step.title]))


def _restored(set_ref: SetRef, element: Element) -> Message:
    kind, flags, payload = nft.add_element(set_ref, element)
    return kind, flags & ~NLM_F_EXCL, payload


def _before(host: Host, table: Table, filled: set[str]) -> _Before:
    """Asks in one datagram for the table, its chains and its sets. `filled`: the chains that have rules."""
    family = nft_ruleset.FAMILIES[table.family]
    chains = [nft.get_chain(nft.Chain(family, table.name, chain.name)) for chain in table.chains]
    sets = [nft_ruleset.get_set(SetRef(family, table.name, named.name)) for named in table.sets]
    answers = host.nft.ask_each([nft_ruleset.get_table(family, table.name), *chains, *sets])
    for answer in answers:
        if isinstance(answer, NetlinkError) and answer.errno != ENOENT:
            raise answer
    absent = [isinstance(answer, NetlinkError) for answer in answers]
    after = 1 + len(chains)
    return _Before(
        absent[0],
        tuple([chain.name for chain in table.chains if chain.name not in filled]),
        tuple([chain for chain, missing in zip(table.chains, absent[1:after], strict=True) if missing]),
        tuple([named for named, missing in zip(table.sets, absent[after:], strict=True) if missing]),
    )


def _restore(host: Host, table: Table, before: _Before) -> None:
    """Removes what was loaded. Chains that had rules keep those of now, which say the same.

    Everything is created before it is deleted, so that nothing in the transaction can be missing. Elements are gone by
    now, or belong to others: see Host.is_sole_user.
    """
    family = nft_ruleset.FAMILIES[table.family]
    (current,) = host.nft.ask_each([nft_ruleset.get_table(family, table.name)])
    if isinstance(current, NetlinkError):
        return
    if before.bare:
        send(host.nft, nft_ruleset.replace(Table(table.family, table.name)))
        return
    steps = nft_ruleset.create(Table(table.family, table.name, before.sets, tuple(map(Chain, before.empty))))
    title = f"table {table.title}"
    for chain in before.chains:
        steps.append(nft_ruleset.Step(nft_rules.delete_chain(nft.Chain(family, table.name, chain.name)), title))
    for named in before.sets:
        steps.append(nft_ruleset.Step(nft_ruleset.delete_set(SetRef(family, table.name, named.name)), title))
    send(host.nft, steps)


def _load_conditions(host: Host, table: Table) -> None:
    program = proc.find_system("nft", host.environment)
    if program is None:
        raise OperationFailed("the program nft is missing: conditionsV4 and conditionsV6 need it (install nftables)")
    text = "\n".join([*nftrule.commands(table), ""])
    ended = proc.run([program, "-f", "-"], text.encode(), host.environment, capture_stderr=True)
    if ended.status != 0:
        reason = ended.stderr.decode("utf-8", "replace").strip()
        raise OperationFailed(f"nft refused podwire's rules: {reason}")
