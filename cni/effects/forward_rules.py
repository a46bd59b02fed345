"""podwire's rules in the table of a chain that drops forwarded packets: in their own chain, a few for each subnet.

A jump at the end of the dropping chain leads there, so packets that its owner drops or rejects stay dropped: only the
policy is overruled. The rules are for subnets, not for containers, and DEL keeps them.
"""

from __future__ import annotations

from cni.kernel import nft, nft_rules
from cni.kernel.nft import NFPROTO_INET, PROTOCOLS, Chain
from cni.plan.forward_accept import CHAIN, JUMP
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.rtnl import Message
    from cni.plan.forward_accept import Accept
    from cni.protocol.address import Net


class Wanted(Record):
    """A rule at the end of `chain`, known again by its comment."""

    chain: Chain
    comment: str
    expressions: bytes


def _own(chain: Chain) -> Chain:
    return Chain(chain.family, chain.table, CHAIN)


def _wanted(chain: Chain, op: Accept) -> list[Wanted]:
    """Returns the rules for the families of the chain's table."""
    wanted = []
    for subnet in op.subnets:
        if chain.family in (NFPROTO_INET, PROTOCOLS[subnet.family]):
            wanted += _of_subnet(_own(chain), subnet, inbound=op.inbound)
    return wanted


def _of_subnet(own: Chain, subnet: Net, *, inbound: bool) -> list[Wanted]:
    to_subnet = nft_rules.to_subnet(own, subnet)
    states = {"to": b""} if inbound else nft_rules.answers(own)
    conditions = {"from": nft_rules.from_subnet(own, subnet)}
    conditions |= {name: to_subnet + state for name, state in states.items()}
    return [
        Wanted(own, f"podwire: {name} {subnet.text}", condition + nft_rules.accept())
        for name, condition in conditions.items()
    ]


def rules(host: Host, chain: Chain) -> list[nft_rules.Rule]:
    """Returns the chain's rules; an empty list if there is no such chain."""
    answers = host.netfilter.dump(*nft.rules_of(chain.family, chain.table, chain.name))
    return [nft_rules.parse_rule(answer) for answer in answers]


def lacking(host: Host, chain: Chain, op: Accept) -> list[Wanted]:
    """Returns the missing rules, the jump included; the administrator may have moved it within the chain."""
    present = {rule.comment for rule in rules(host, _own(chain))}
    missing = [rule for rule in _wanted(chain, op) if rule.comment not in present]
    if not any(rule.target == CHAIN for rule in rules(host, chain)):
        missing.append(Wanted(chain, JUMP, nft_rules.jump(CHAIN)))
    return missing


def remove(host: Host, chain: Chain, op: Accept) -> None:
    """Removes the rules of the subnets, not the jump. Raises NetlinkError, OSError."""
    own = _own(chain)
    comments = {rule.comment for rule in _wanted(chain, op)}
    present = [rule for rule in rules(host, own) if rule.comment in comments]
    if present:
        change(host, [nft_rules.delete_rule(own, rule.handle) for rule in present])


def remove_empty(host: Host, chain: Chain) -> None:
    """Removes the chain of podwire's rules if none is left, and its jump. Raises TryAgain, NetlinkError, OSError."""
    own = _own(chain)
    if not _is_empty(host, own):
        return
    host.lock.lock_exclusive()
    try:
        if _is_empty(host, own):  # still: a container may have been attached meanwhile
            jumps = [rule for rule in rules(host, own._replace(name="")) if rule.target == CHAIN]
            leaving = [nft_rules.delete_rule(own._replace(name=rule.chain), rule.handle) for rule in jumps]
            change(host, [*leaving, nft_rules.delete_chain(own)])
    finally:
        host.lock.release()


def _is_empty(host: Host, own: Chain) -> bool:
    """Returns True if the chain is there without rules. A kernel without nftables has no chain."""
    try:
        (answer,) = host.netfilter.ask_each([nft.get_chain(own)])
    except OSError:
        return False
    return isinstance(answer, bytes) and not rules(host, own)


def ensure(host: Host, chain: Chain, op: Accept, journal: Journal) -> None:
    """Adds missing rules under the exclusive lock; after waiting for it, the rules are read again. Raises NetlinkError,
    OSError.
    """
    if not lacking(host, chain, op):
        return
    host.lock.lock_exclusive()
    try:
        if missing := lacking(host, chain, op):
            _add(host, chain, missing, journal)
    finally:
        host.lock.lock_shared()


def _add(host: Host, chain: Chain, missing: list[Wanted], journal: Journal) -> None:
    own = _own(chain)
    (before,) = host.netfilter.ask_each([nft.get_chain(own)])
    is_new = not isinstance(before, bytes)
    added = [nft_rules.append_rule(rule.chain, rule.expressions, rule.comment) for rule in missing]
    journal.run(
        lambda: change(host, [nft_rules.add_chain(own), *added]),
        lambda: _remove_added(host, missing, own if is_new else None),
        shared=True,
    )


def _remove_added(host: Host, added: list[Wanted], new_chain: Chain | None) -> None:
    """Deletes the rules that were added, and their chain if it was new; rules that are gone already are ignored."""
    messages = []
    for chain in dict.fromkeys([rule.chain for rule in reversed(added)]):
        comments = {rule.comment for rule in added if rule.chain == chain}
        present = [rule for rule in rules(host, chain) if rule.comment in comments]
        messages += [nft_rules.delete_rule(chain, rule.handle) for rule in present]
    if new_chain is not None and isinstance(host.netfilter.ask_each([nft.get_chain(new_chain)])[0], bytes):
        messages.append(nft_rules.delete_chain(new_chain))
    if messages:
        change(host, messages)


def change(host: Host, messages: list[Message]) -> None:
    """Sends a transaction: all messages or none take effect. Raises NetlinkError."""
    refusal = host.netfilter.batch(nft.transaction(messages))
    if refusal is not None:
        raise refusal
