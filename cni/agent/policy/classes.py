"""Classes: the lists of policies that select a pod for a direction, each a chain that its pods' addresses lead to.

A NetworkPolicy is one chain, which all classes share. The ClusterNetworkPolicies of a tier that select a pod are one
chain together, shared by all classes with the same list: so a rule that passes is a mere `return` from it, and the
kernel, which checks every way through a table, finds no more ways than there are rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.clusterpolicy import ACCEPT, ADMIN, BASELINE, PASS, TIERS
from cni.agent.policy.compiler import allowing, compile_matches, digest, policy_chain, suffix
from cni.plan.nftrule import RETURN, Rule, Verdict
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.agent.policy.clusterpolicy import ClusterPolicy, ClusterRule
    from cni.agent.policy.compiler import CompiledChain
    from cni.agent.policy.groups import Group

COMMENT_LIMIT = 80  # characters of a policy's name


class PolicyChain(Record):
    """The chain of a NetworkPolicy."""

    title: str
    direction: str

    @property
    def titles(self) -> tuple[str, ...]:
        return (self.title,)

    @property
    def name(self) -> str:
        return policy_chain(self.title, self.direction)


class TierChain(Record):
    """The chain of a tier's policies that select a pod, in the order in which they are asked."""

    tier: str
    titles: tuple[str, ...]
    direction: str

    @property
    def name(self) -> str:
        return f"{self.tier.lower()}/{suffix(self.direction)}/{digest(self.titles)}"


class ClassChain(Record):
    """The policies that select a pod: those of the tier Admin, NetworkPolicies, and only where there are none of these,
    those of the tier Baseline.
    """

    direction: str
    admin: tuple[str, ...]
    policies: tuple[str, ...]
    baseline: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"class/{suffix(self.direction)}/{digest((self.admin, self.policies, self.baseline))}"

    @property
    def parts(self) -> tuple[PolicyChain | TierChain, ...]:
        """The chains that it jumps to."""
        policies = [PolicyChain(title, self.direction) for title in self.policies]
        admin, baseline = [
            [TierChain(tier, titles, self.direction)] if titles else []
            for tier, titles in ((ADMIN, self.admin), (BASELINE, self.baseline))
        ]
        return (*admin, *policies, *baseline)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules: what no NetworkPolicy accepts is denied, if there is one."""
        end = Verdict("goto", isolation_chain(self.direction)) if self.policies else allowing(self.direction)
        return (*[Rule((Verdict("jump", part.name),)) for part in self.parts], Rule((end,)))


def class_of(group: Group, direction: str) -> ClassChain:
    """Returns the policies of a group's pods; those of a tier that have no rules for the direction say nothing."""
    policies = tuple([policy.title for policy in group.policies if policy.rules(direction) is not None])
    admin, baseline = [
        tuple([policy.title for policy in group.tier(tier) if policy.rules(direction)]) for tier in (ADMIN, BASELINE)
    ]
    return ClassChain(direction, admin, policies, () if policies else baseline)


def isolation_chain(direction: str) -> str:
    """Returns the name of the chain where NetworkPolicies end: a pod reaches itself, and all else is denied."""
    return f"isolated-{suffix(direction)}"


def denial_chain(direction: str) -> str:
    """Returns the name of the chain of what is denied."""
    return f"denied-{suffix(direction)}"


def compile_tier(policies: list[ClusterPolicy], direction: str, families: tuple[int, ...]) -> CompiledChain:
    """Returns the rules of a tier's policies, which are in the order in which they are asked."""
    matches = [
        (rule.match, _verdict(rule, direction), f"{policy.name[:COMMENT_LIMIT]} {direction.lower()} {rule.number}")
        for policy in policies
        for rule in policy.rules(direction)
    ]
    return compile_matches(matches, direction, families)


def rule_of(chain: str, comment: str) -> tuple[str, str, str] | None:
    """Returns policy, direction and number of the policy's rule that a rule of the table is for; None for others.

    The comment ends with the rule's digest (cni.agent.dataplane.policy_table).
    """
    kind, _, rest = chain.partition("/")
    words = comment.split(" ")[:-1]
    if kind == "policy" and len(words) == 2:
        return rest.rpartition("/")[0], words[0], words[1]
    if kind in map(str.lower, TIERS) and len(words) == 3:
        return words[0], words[1], words[2]
    return None


def _verdict(rule: ClusterRule, direction: str) -> Verdict:
    if rule.action == PASS:
        return RETURN
    return allowing(direction) if rule.action == ACCEPT else Verdict("goto", denial_chain(direction))
