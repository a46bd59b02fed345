"""Other people's firewalls, judged by their rules: may a new connection of a container pass?

Only what surely excludes such a connection counts against a rule; all that is not understood may let it pass. So a
verdict of "dropped" can be relied on, and a node whose administrator has seen to its containers is never called unfit.
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ACCEPT = "accept"
ACCEPTING = ("ACCEPT", "QUEUE", "NFQUEUE")  # who reads the queue may accept
STATES = ("--ctstate", "--state")


class Rule(Record):
    """One rule of a chain, as far as it is understood.

    `target`: ACCEPT, the chain that it leads to, or whatever lets nothing pass. `incoming`: the interface
    that it asks for, with * at the end for all that begin so; empty for any. `bound`: it asks for certain
    destinations. `answers`: it lets no new connection pass. `ends`: it rejects or drops everything.
    """

    target: str
    incoming: str = ""
    bound: bool = False
    answers: bool = False
    ends: bool = False


def may_pass(rules: Mapping[str, Sequence[Rule]], chain: str, interface: str, *, ours: bool = False) -> bool:
    """Whether one of the chain's rules, or of those that it leads to, may accept what comes in by the interface.

    `interface` may end in *, too. What is bound to destinations counts only where `ours`, the container's interface,
    was asked for: then somebody has decided what containers may reach.
    """
    for rule in rules.get(chain, ()):
        if rule.answers or (rule.incoming and not _overlap(rule.incoming, interface)):
            continue
        named = ours or bool(rule.incoming)
        if rule.target == ACCEPT and (named or not rule.bound):
            return True
        if rule.target in rules and may_pass(rules, rule.target, interface, ours=named):
            return True
    return False


def _overlap(one: str, other: str) -> bool:
    """Whether two names, each with * at its end for all that begin so, may mean the same interface."""
    if not one.endswith("*"):
        one, other = other, one
    if not one.endswith("*"):
        return one == other
    stem, rest = one[:-1], other.rstrip("*")
    return rest.startswith(stem) or (other.endswith("*") and stem.startswith(rest))


def read_iptables(listed: str) -> dict[str, list[Rule]]:
    """The rules of `iptables -S`, by chain."""
    found: dict[str, list[Rule]] = {}
    for words in [line.split() for line in listed.splitlines()]:
        if len(words) >= 2 and words[0] == "-A":
            found.setdefault(words[1], []).append(_read_rule(words[2:]))
        elif len(words) >= 2:
            found.setdefault(words[1], [])
    return found


def rejects(rules: Mapping[str, Sequence[Rule]], chain: str) -> bool:
    """Returns whether whatever reaches the chain's last rule is rejected or dropped by it."""
    return bool(rules.get(chain)) and rules[chain][-1].ends


def drops(listed: str, chain: str) -> bool:
    """Whether `iptables -S` says that the chain's policy is to drop."""
    return f"-P {chain} DROP" in listed.splitlines()


def _read_rule(words: list[str]) -> Rule:
    rule = Rule("", ends=words[:1] == ["-j"] and words[1:2] in (["REJECT"], ["DROP"]))
    for before, word, value in zip(["", *words], words, [*words[1:], ""], strict=False):
        if before == "!":
            continue
        if word in ("-j", "-g"):
            rule = rule._replace(target=ACCEPT if value in ACCEPTING else value)
        elif word == "-i":
            rule = rule._replace(incoming=value.replace("+", "*"))
        elif word == "-d":
            rule = rule._replace(bound=True)
        elif word in STATES:
            rule = rule._replace(answers="NEW" not in value.split(","))
    return rule
