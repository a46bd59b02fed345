"""The audit of foreign firewall rules: may a new connection of a container pass?

A rule excludes such a connection only if that is certain; a rule that is not understood may let it pass. So the result
"dropped" is reliable, and a node whose administrator has accepted the containers is never reported as unusable.
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ACCEPT, BARS, RETURN = "accept", "bars", "return"
ACCEPTING, BARRING = ("ACCEPT", "QUEUE", "NFQUEUE"), ("REJECT", "DROP")  # who reads the queue may accept
STATES = ("--ctstate", "--state")


class Rule(Record):
    """A rule of a chain, as far as it is understood.

    `target`: ACCEPT, BARS (it rejects or drops), RETURN, the chain that it jumps to, or anything else. `incoming`: the
    interface that it matches, with * at the end as a prefix; empty for any. `bound`: it matches certain destinations.
    `answers`: it matches no new connection. `always`: it matches every packet. `leaves`: a packet does not come back
    from the other chain.
    """

    target: str
    incoming: str = ""
    bound: bool = False
    answers: bool = False
    always: bool = False
    leaves: bool = False


class Judgement(Record):
    """The way of a new connection through a chain: a rule may accept it, or one of the chain `barred_by` certainly
    rejects or drops it, or neither, and it goes on behind the chain.
    """

    may_pass: bool = False
    barred_by: str = ""


def judge(rules: Mapping[str, Sequence[Rule]], chain: str, interface: str, *, ours: bool = False) -> Judgement:
    """Judges packets from the interface by the chain's rules, and those of the chains that it jumps to.

    `interface` may end in *, too. A rule for certain destinations counts only if the container's interface was matched
    (`ours`): then the administrator has decided what containers may reach.
    """
    may_return = False
    for rule in rules.get(chain, ()):
        if rule.answers or (rule.incoming and not _overlap(rule.incoming, interface)):
            continue
        named = ours or bool(rule.incoming)
        if rule.target == ACCEPT and (named or not rule.bound):
            return Judgement(may_pass=True)
        below = judge(rules, rule.target, interface, ours=named) if rule.target in rules else Judgement()
        if below.may_pass:
            return below
        barred_by = chain if rule.target == BARS else below.barred_by
        if barred_by and rule.always and not may_return:
            return Judgement(barred_by=barred_by)
        if rule.target == RETURN or rule.leaves:
            if rule.always:
                break
            may_return = True
    return Judgement()


def _overlap(name: str, other: str) -> bool:
    """Returns True if two names, each with * at its end as a prefix, may match the same interface."""
    if not name.endswith("*"):
        name, other = other, name
    if not name.endswith("*"):
        return name == other
    stem, rest = name[:-1], other.rstrip("*")
    return rest.startswith(stem) or (other.endswith("*") and stem.startswith(rest))


def read_iptables(listed: str) -> dict[str, list[Rule]]:
    """Returns the rules of `iptables -S`, by chain."""
    rules: dict[str, list[Rule]] = {}
    for tokens in [line.split() for line in listed.splitlines()]:
        if len(tokens) >= 2 and tokens[0] == "-A":
            rules.setdefault(tokens[1], []).append(_read_rule(tokens[2:]))
        elif len(tokens) >= 2:
            rules.setdefault(tokens[1], [])
    return rules


def drops(listed: str, chain: str) -> bool:
    """Returns True if the chain's policy in `iptables -S` is DROP."""
    return f"-P {chain} DROP" in listed.splitlines()


def _read_rule(tokens: list[str]) -> Rule:
    rule = Rule("", always=tokens[:1] in (["-j"], ["-g"]))
    for before, option, value in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        if before == "!":
            continue
        if option in ("-j", "-g"):
            rule = rule._replace(target=_target(value), leaves=option == "-g")
        elif option == "-i":
            rule = rule._replace(incoming=value.replace("+", "*"))
        elif option == "-d":
            rule = rule._replace(bound=True)
        elif option in STATES:
            rule = rule._replace(answers="NEW" not in value.split(","))
    return rule


def _target(name: str) -> str:
    """Returns the target by its name in iptables."""
    if name in ACCEPTING:
        return ACCEPT
    return BARS if name in BARRING else RETURN if name == "RETURN" else name
