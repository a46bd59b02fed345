"""The audit of foreign firewall rules: may a new connection of a container pass?

A rule excludes such a connection only if that is certain; a rule that is not understood may let it pass. So the result
"dropped" is reliable, and a node whose administrator has accepted the containers is never reported as unusable.
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
    """A rule of a chain, as far as it is understood.

    `target`: ACCEPT, the chain that it jumps to, or any other verdict. `incoming`: the interface that it matches, with
    * at the end as a prefix; empty for any. `bound`: it matches certain destinations. `answers`: it lets no new
    connection pass. `ends`: it rejects or drops every packet.
    """

    target: str
    incoming: str = ""
    bound: bool = False
    answers: bool = False
    ends: bool = False


def may_pass(rules: Mapping[str, Sequence[Rule]], chain: str, interface: str, *, ours: bool = False) -> bool:
    """Returns True if one of the chain's rules, or of chains that it jumps to, may accept packets from the interface.

    `interface` may end in *, too. A rule for certain destinations counts only if the container's interface was matched
    (`ours`): then the administrator has decided what containers may reach.
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


def rejects(rules: Mapping[str, Sequence[Rule]], chain: str) -> bool:
    """Returns True if the chain's last rule rejects or drops every packet."""
    return bool(rules.get(chain)) and rules[chain][-1].ends


def drops(listed: str, chain: str) -> bool:
    """Returns True if the chain's policy in `iptables -S` is DROP."""
    return f"-P {chain} DROP" in listed.splitlines()


def _read_rule(tokens: list[str]) -> Rule:
    rule = Rule("", ends=tokens[:1] == ["-j"] and tokens[1:2] in (["REJECT"], ["DROP"]))
    for before, option, value in zip(["", *tokens], tokens, [*tokens[1:], ""], strict=False):
        if before == "!":
            continue
        if option in ("-j", "-g"):
            rule = rule._replace(target=ACCEPT if value in ACCEPTING else value)
        elif option == "-i":
            rule = rule._replace(incoming=value.replace("+", "*"))
        elif option == "-d":
            rule = rule._replace(bound=True)
        elif option in STATES:
            rule = rule._replace(answers="NEW" not in value.split(","))
    return rule
