"""The administrator's chain of iptables, asked before all rules of FORWARD, as by the reference firewall plugin.

The chain is the administrator's to make. Where it is, a jump at the head of FORWARD leads there, whether or not FORWARD
drops: what it drops is dropped, what it accepts needs no other rule. All of it is in the tables of iptables-nft.
"""

from __future__ import annotations

from cni.effects import Effect, not_released
from cni.effects.forward_accept import TABLE
from cni.kernel import nft
from cni.kernel.nft import PROTOCOLS, Chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.adminchain import AdminChain

FORWARD = "FORWARD"
REFERENCE = "CNI-FORWARD"  # from whose head the reference leads to the chain
COMMENT = "podwire: asked first"


def apply(host: Host, op: AdminChain, journal: Journal) -> None:
    """Adds the jump under the exclusive lock; after waiting, the chain is read again: another ADD may have added it."""
    if not _unasked(host, op):
        return
    host.lock.lock_exclusive()
    try:
        for forward in _unasked(host, op):
            _lead(host, forward, op.name, journal)
    finally:
        host.lock.lock_shared()


def differs(host: Host, op: AdminChain) -> str:
    for forward in _unasked(host, op):
        return f"chain {FORWARD} of table {forward.table_text} does not lead to {op.name}"
    return ""


def _unasked(host: Host, op: AdminChain) -> list[Chain]:
    """Returns the chains FORWARD beside which the chain exists, and that do not lead there."""
    forwards = [Chain(PROTOCOLS[family], TABLE, FORWARD) for family in op.families]
    asked = [forward._replace(name=op.name) for forward in forwards]
    pairs = zip(forwards, _exist(host, asked), strict=True)
    return [forward for forward, exists in pairs if exists and not _leads(host, forward, op.name)]


def _exist(host: Host, chains: Iterable[Chain]) -> list[bool]:
    """Asks in one datagram. A kernel without nftables has none. Raises NetlinkError, OSError."""
    questions = [nft.get_chain(chain) for chain in chains]
    try:
        answers = host.netfilter.ask_each(questions)
    except OSError as error:
        if error.errno in nft.NOT_FOUND_OR_EINVAL:
            return [False] * len(questions)
        raise
    for answer in answers:
        if not isinstance(answer, bytes) and answer.errno not in nft.NOT_FOUND_OR_EINVAL:
            raise answer
    return [isinstance(answer, bytes) for answer in answers]


def _leads(host: Host, forward: Chain, name: str) -> bool:
    from cni.effects import forward_rules

    targets = {rule.target for rule in forward_rules.rules(host, forward)}
    if REFERENCE in targets:
        targets.update(rule.target for rule in forward_rules.rules(host, forward._replace(name=REFERENCE)))
    return name in targets


def _lead(host: Host, forward: Chain, name: str, journal: Journal) -> None:
    """Makes FORWARD as well where no rule of iptables has needed it yet."""
    from cni.effects import forward_rules
    from cni.kernel import nft_rules

    messages = [] if _exist(host, [forward])[0] else [nft_rules.add_forward_chain(forward)]
    jump = nft_rules.insert_rule(forward, nft_rules.jump(name), COMMENT)
    journal.run(
        lambda: forward_rules.change(host, [*messages, jump]),
        lambda: _take_back(host, forward),
        shared=True,
    )


def _take_back(host: Host, forward: Chain) -> None:
    from cni.effects import forward_rules
    from cni.kernel import nft_rules

    jumps = [rule for rule in forward_rules.rules(host, forward) if rule.comment == COMMENT]
    if jumps:
        forward_rules.change(host, [nft_rules.delete_rule(forward, rule.handle) for rule in jumps])


EFFECTS = {
    "AdminChain": Effect(apply, not_released, differs),
}
