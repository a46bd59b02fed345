"""Explanations: of a connection's verdict, for each direction that this node judges, and of a pod's policies.

The node of a pod judges what concerns the pod, so of a connection to another node one direction is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.basetable import PENDING
from cni.agent.policy.classes import TierChain, class_of
from cni.agent.policy.clusterpolicy import TIERS, ClusterPolicy, ties_in
from cni.agent.policy.compiler import NodeSet, PodSet, PortSet, suffix
from cni.agent.policy.describe import peer_text, rule_text
from cni.agent.policy.evaluator import CLUSTERED, allowed
from cni.agent.policy.objects import EGRESS, INGRESS
from cni.plan.policy import map_name
from cni.protocol.address import IP
from cni.protocol.control import ALLOWED, DENIED, ELSEWHERE
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.agent.policy.classes import PolicyChain
    from cni.agent.policy.compiler import SetSource
    from cni.agent.policy.evaluator import Judgement
    from cni.agent.policy.groups import Group, Policy
    from cni.agent.policy.index import Index
    from cni.agent.policy.objects import Pod
    from cni.agent.policy.tracker import Tracker

DIRECTIONS = (EGRESS, INGRESS)  # in the order in which they are judged
MISSES_SHOWN = 200
NO_RULES, ERROR = "no rules", "error"  # beside the evaluator's: why a policy allows nothing


class End(Record):
    """An end of a connection: the pod that has the address, empty if none is known, and whether it is on this node."""

    address: IP
    pod: str = ""
    here: bool = False


class Miss(Record):
    """A rule that does not match, or a policy without rules, why, and what it says."""

    rule: str
    because: str
    text: str


class Element(Record):
    """An element of the kernel's maps as it has to be: the chain that an address leads to, empty if none, and those
    that this one jumps to.
    """

    map_name: str
    address: IP
    chain: str
    parts: tuple[str, ...] = ()


class Direction(Record):
    """A direction of a connection. `left_out`: misses beyond those that are told."""

    direction: str
    pod: str
    verdict: str
    reason: str
    isolating: tuple[str, ...] = ()
    rule: Miss | None = None
    misses: tuple[Miss, ...] = ()
    left_out: int = 0
    element: Element | None = None


class Explanation(Record):
    """The verdict on a connection, as far as this node judges it, and its reason in a sentence."""

    source: End
    destination: End
    verdict: str
    reason: str
    directions: tuple[Direction, ...]


class UsedSet(Record):
    """A set that rules look up: its size, and what is in it."""

    name: str
    size: int
    text: str


class PolicyView(Record):
    """A policy of a pod in a direction: its chain, what its rules say, and the sets that the chain looks up. `tier` is
    empty for a NetworkPolicy, which isolates the pod; `same_priority` are those from which only the name orders it.
    """

    title: str
    chain: str
    error: str
    rules: tuple[str, ...] = ()
    sets: tuple[UsedSet, ...] = ()
    tier: str = ""
    unsupported: str = ""
    same_priority: tuple[str, ...] = ()


class PodView(Record):
    """The policies of a pod by direction, and where its addresses lead to in the kernel's maps."""

    pod: Pod
    here: bool
    policies: dict[str, tuple[PolicyView, ...]]
    elements: dict[str, tuple[Element, ...]]


def end_of(index: Index, address: IP) -> End:
    """Returns who has an address."""
    pod = index.pod_at(address.packed)
    return End(address, f"{pod.namespace}/{pod.name}", pod.node == index.node) if pod else End(address)


def explain(
    index: Index, source: IP, destination: IP, protocol: str, port: int, *, unknown: str = DENIED
) -> Explanation:
    """Returns why a connection is allowed or denied. An empty protocol is every port of every protocol; `unknown` is
    the verdict on pods that are attached and not known yet.
    """
    ends = {EGRESS: end_of(index, source), INGRESS: end_of(index, destination)}
    verdict = allowed(index, source, destination, protocol, port)
    judgements = {judgement.direction: judgement for judgement in verdict.judgements}
    directions = []
    for direction in DIRECTIONS:
        address, peer = (source, destination) if direction == EGRESS else (destination, source)
        if index.is_pending(address.packed) and peer != address and peer.packed not in index.node_addresses:
            directions.append(_pending(direction, address, unknown))
        elif direction in judgements:
            directions.append(_direction(index, judgements[direction], ends[direction]))
    denied = [direction for direction in directions if direction.verdict == DENIED]
    if not directions:
        return Explanation(ends[EGRESS], ends[INGRESS], ALLOWED, verdict.reason, ())
    here = [direction for direction in directions if direction.verdict != ELSEWHERE]
    text = "; ".join([direction.reason for direction in denied or directions])
    conclusion = DENIED if denied else ALLOWED if here else ELSEWHERE
    return Explanation(ends[EGRESS], ends[INGRESS], conclusion, text, tuple(directions))


def _pending(direction: str, address: IP, verdict: str) -> Direction:
    element = Element(map_name(suffix(direction), address.family), address, PENDING[suffix(direction)])
    reason = f"{direction.lower()} of {address.text}: the pod is attached, and not known to the store of policies yet"
    return Direction(direction, "", verdict, reason, element=element)


def _direction(index: Index, judgement: Judgement, end: End) -> Direction:
    direction = judgement.direction
    if not end.here:
        reason = f"{direction.lower()} of {end.pod}: judged by its own node"
        return Direction(direction, end.pod, ELSEWHERE, reason)
    misses = [_miss(index, rule, because) for rule, because in judgement.misses]
    for title in () if judgement.allowed else judgement.isolating:
        policy = index.policy(title)
        if policy is not None and not policy.rules(direction):
            misses.append(Miss(title, ERROR if policy.error else NO_RULES, policy.error))
    return Direction(
        direction,
        end.pod,
        ALLOWED if judgement.allowed else DENIED,
        judgement.reason,
        judgement.isolating,
        _miss(index, judgement.rule, "") if judgement.rule else None,
        tuple(misses[:MISSES_SHOWN]),
        max(0, len(misses) - MISSES_SHOWN),
        _element(index.local_group(end.address.packed), direction, end.address),
    )


def _miss(index: Index, name: str, because: str) -> Miss:
    """Finds the rule of which the evaluator gives the name."""
    title, direction, position = name.removeprefix(CLUSTERED).split(" ")[:3]
    policy = index.policy(title)
    texts = _rule_texts(policy, direction.capitalize()) if policy is not None else {}
    return Miss(name, because, texts.get(int(position), ""))


def _rule_texts(policy: Policy, direction: str) -> dict[int, str]:
    """Returns the texts of a policy's rules by their numbers."""
    if isinstance(policy, ClusterPolicy):
        return {
            rule.number: f"{rule.action.lower()} {rule_text(rule.match, direction)}" for rule in policy.rules(direction)
        }
    return {number: rule_text(rule, direction) for number, rule in enumerate(policy.rules(direction) or ())}


def _element(group: Group | None, direction: str, address: IP) -> Element:
    """Returns the element of an address of this node."""
    name = map_name(suffix(direction), address.family)
    chain = class_of(group, direction) if group is not None else None
    if chain is None or not chain.parts:
        return Element(name, address, "")
    return Element(name, address, chain.name, tuple([part.name for part in chain.parts]))


def show(index: Index, tracker: Tracker, pod: Pod) -> PodView:
    """Returns the policies of a pod; of one on another node those that its node enforces, without sets."""
    here = pod.node == index.node
    group = index.group_named(pod.namespace, pod.name)
    policies: dict[str, tuple[PolicyView, ...]] = {}
    elements: dict[str, tuple[Element, ...]] = {}
    for direction in DIRECTIONS:
        parts = class_of(group, direction).parts if group is not None else ()
        views = [view for part in parts for view in _policy_views(index, tracker, part)]
        policies[direction] = (*views, *(_without_rules(group) if group is not None else ()))
        addresses = [IP.from_packed(address) for address in pod.addresses if here]
        elements[direction] = tuple([_element(group, direction, address) for address in addresses])
    return PodView(pod, here, policies, elements)


def _without_rules(group: Group) -> list[PolicyView]:
    """Returns the ClusterNetworkPolicies of which no rule is left."""
    policies = [policy for tier in TIERS for policy in group.tier(tier) if not policy.ingress and not policy.egress]
    return [
        PolicyView(policy.title, "", policy.error, tier=policy.tier, unsupported=policy.unserved)
        for policy in policies
        if policy.error or policy.unserved
    ]


def _policy_views(index: Index, tracker: Tracker, part: PolicyChain | TierChain) -> list[PolicyView]:
    sets = tuple([_used_set(tracker, source) for source in tracker.sets_of(part)])
    tier = part.tier if isinstance(part, TierChain) else ""
    policies = [policy for title in part.titles if (policy := index.policy(title)) is not None]
    ties = ties_in([policy for policy in policies if isinstance(policy, ClusterPolicy)])
    return [
        PolicyView(
            policy.title,
            part.name,
            policy.error,
            tuple([*_rule_texts(policy, part.direction).values()][:MISSES_SHOWN]),
            sets,
            tier,
            policy.unserved if isinstance(policy, ClusterPolicy) else "",
            tuple([name for tie in ties if policy.name in tie.names for name in tie.names if name != policy.name]),
        )
        for policy in policies
    ]


def _used_set(tracker: Tracker, source: SetSource) -> UsedSet:
    if isinstance(source, PodSet | NodeSet):
        return UsedSet(source.name, len(tracker.table.elements[source.name]), peer_text(source.peer))
    if isinstance(source, PortSet):
        text = f"ports {source.port} of {source.protocol}"
        return UsedSet(source.name, len(tracker.table.elements[source.name]), text)
    return UsedSet(source.name, len(tracker.table.spans[source.name]), "networks")
