"""Tests the evaluator against what ClusterNetworkPolicy's documentation says, statement by statement: a test's name is
the statement, with its number among those of all policies.

Pods a, b, c of the namespaces x, y, z; those of x on node n1, of y on n2, of z on n3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.policy_objects import Cluster, cluster_policy_of, node_of, pod_of, policy_of
from tests.unit.test_policy_statements import EVERYBODY, OUTSIDE, PODS, SPACES, who_reaches, whom_reaches

if TYPE_CHECKING:
    from cni.agent.policy.clusterpolicy import ClusterPolicy
    from cni.agent.policy.nodes import Node
    from cni.agent.policy.objects import NetworkPolicy

PROTOCOLS = ("TCP/80", "TCP/81", "UDP/80", "SCTP/80", "ICMP")
A, B = (f"{{podSelector: {{matchLabels: {{app: {name}}}}}}}" for name in "ab")
X_A = "{pods: {namespaceSelector: {matchLabels: {team: x}}, podSelector: {matchLabels: {app: a}}}}"
Y, Z = (f"{{namespaces: {{matchLabels: {{team: {name}}}}}}}" for name in "yz")
ALL = "{namespaces: {}}"
ISOLATED = policy_of("x/closed", "{podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress, Egress]}")
ALLOW_Z = policy_of(
    "x/z", "{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: z}}}]}]}"
)


def rule(action: str, *peers: str, end: str = "from", protocols: str = "") -> str:
    ports = f", protocols: [{protocols}]" if protocols else ""
    return f"{{action: {action}, {end}: [{', '.join(peers)}]{ports}}}"


def policy(
    name: str, *ingress: str, tier: str = "Admin", priority: int = 10, egress: tuple[str, ...] = ()
) -> ClusterPolicy:
    """Returns a policy about the pod x/a."""
    rules = f"ingress: [{', '.join(ingress)}], egress: [{', '.join(egress)}]"
    return cluster_policy_of(name, f"{{tier: {tier}, priority: {priority}, subject: {X_A}, {rules}}}")


def cluster(*objects: ClusterPolicy | NetworkPolicy | Node) -> Cluster:
    return Cluster(*SPACES, *PODS, *objects)


def of(*spaces: str) -> set[str]:
    return {end for end in EVERYBODY if end.partition("/")[0] in spaces}


OTHERS = EVERYBODY - {"x/a"}


def test_24_a_pod_that_reaches_itself_through_a_service_is_judged_by_cluster_policies_alone() -> None:
    assert cluster(ISOLATED).allows("x/a", "x/a")
    for denied in (policy("deny", rule("Deny", ALL)), policy("deny", egress=(rule("Deny", ALL, end="to"),))):
        assert not cluster(denied).allows("x/a", "x/a")
        assert cluster(denied._replace(tier="Baseline"), ISOLATED).allows("x/a", "x/a"), "NetworkPolicy has decided"
        assert not cluster(denied._replace(tier="Baseline")).allows("x/a", "x/a")


def test_41_admin_comes_before_network_policies_and_these_before_baseline_and_then_all_is_allowed() -> None:
    admin, baseline = policy("admin", rule("Deny", Z)), policy("base", rule("Deny", Y), tier="Baseline")
    assert who_reaches(cluster(), "x/a") == OTHERS
    assert who_reaches(cluster(baseline), "x/a") == OTHERS - of("y")
    assert who_reaches(cluster(admin, baseline), "x/a") == OTHERS - of("y", "z")
    assert who_reaches(cluster(admin, baseline, ALLOW_Z), "x/a") == set(), "what is allowed behind a denial is not"
    assert who_reaches(cluster(policy("admin", rule("Accept", Y)), ALLOW_Z), "x/a") == of("y", "z")


@pytest.mark.parametrize("tier", ["Admin", "Baseline"])
def test_41_the_lowest_priority_of_a_tier_is_asked_first(tier: str) -> None:
    def tried(first: int, second: int) -> set[str]:
        accept = policy("accept", rule("Accept", Y), tier=tier, priority=first)
        return who_reaches(cluster(accept, policy("deny", rule("Deny", ALL), tier=tier, priority=second)), "x/a")

    assert tried(0, 1) == tried(9, 1000) == of("y") | {OUTSIDE}
    assert tried(1, 0) == tried(10, 9) == {OUTSIDE}


def test_41_the_first_rule_of_a_policy_that_matches_decides() -> None:
    rules = [rule("Accept", Y), rule("Deny", ALL), rule("Accept", Z)]
    assert who_reaches(cluster(policy("p", *rules)), "x/a") == of("y") | {OUTSIDE}
    assert who_reaches(cluster(policy("p", *rules[::-1])), "x/a") == of("y", "z") - of("y") | {OUTSIDE}


def test_42_rules_isolate_nobody_and_a_network_policy_decides_for_the_pods_that_it_selects() -> None:
    accept = rule("Accept", Y)
    assert who_reaches(cluster(policy("p", accept)), "x/a") == OTHERS
    assert who_reaches(cluster(policy("p", accept, tier="Baseline"), ALLOW_Z), "x/a") == of("z")
    deny = policy("p", rule("Deny", ALL), tier="Baseline")
    assert who_reaches(cluster(deny, ALLOW_Z), "x/a") == of("z")
    assert who_reaches(cluster(deny), "x/a") == {OUTSIDE}


def test_43_accept_and_deny_end_a_direction_and_the_other_one_is_still_asked() -> None:
    accept = policy("p", rule("Accept", ALL), egress=(rule("Accept", ALL, end="to"),))
    assert who_reaches(cluster(accept, ISOLATED), "x/a") == OTHERS - {OUTSIDE}
    closed = policy_of("y/closed", "{podSelector: {}, policyTypes: [Ingress]}")
    assert whom_reaches(cluster(accept, ISOLATED, closed), "x/a") == OTHERS - of("y") - {OUTSIDE}
    denied = cluster_policy_of("deny", f"{{subject: {X_A}, egress: [{rule('Deny', Y, end='to')}]}}")
    assert not cluster(denied, policy("open", rule("Accept", ALL), priority=1)).allows("x/a", "y/b")
    assert cluster(denied).allows("y/b", "x/a")


def test_43_pass_skips_the_rest_of_its_tier_and_means_allow_in_baseline() -> None:
    passing, deny = policy("pass", rule("Pass", Y), priority=1), policy("deny", rule("Deny", ALL))
    assert who_reaches(cluster(passing, deny), "x/a") == of("y") | {OUTSIDE}
    assert who_reaches(cluster(passing, deny, ALLOW_Z), "x/a") == set(), "of y, NetworkPolicy allows nobody"
    baseline = [cluster_policy._replace(tier="Baseline") for cluster_policy in (passing, deny)]
    assert who_reaches(cluster(*baseline), "x/a") == of("y") | {OUTSIDE}
    assert who_reaches(cluster(passing, baseline[1]), "x/a") == {OUTSIDE}, "Baseline is asked after a pass in Admin"


def test_44_a_policy_without_rules_for_a_direction_has_no_effect_on_it() -> None:
    only_egress = cluster_policy_of("p", f"{{subject: {X_A}, egress: [{rule('Deny', ALL, end='to')}]}}")
    assert who_reaches(cluster(only_egress), "x/a") == OTHERS
    assert whom_reaches(cluster(only_egress), "x/a") == {OUTSIDE}
    assert who_reaches(cluster(policy("none")), "x/a") == OTHERS


@pytest.mark.parametrize("peers", ["from: []", "to: []", "from: null"])
def test_44_a_rule_without_peers_is_not_one_for_all(peers: str) -> None:
    deny = policy("deny", rule("Deny", ALL))
    for action in ("Accept", "Pass"):
        accept = policy("accept", f"{{action: {action}, {peers}}}", priority=1)
        assert who_reaches(cluster(accept, deny), "x/a").isdisjoint(of("y", "z")), action


@pytest.mark.parametrize(
    "peer", ["{}", "{services: {}}", "{domainNames: [a.example]}", "{networks: [10.0.0.0/8]}", "{nodes: {}}"]
)
def test_45_a_peer_that_is_not_known_closes_its_rule(peer: str) -> None:
    deny = policy("deny", rule("Deny", Y))
    accept = policy("p", rule("Accept", peer, Y), priority=1)
    assert who_reaches(cluster(accept, deny), "x/a") == OTHERS - of("y"), "it matches nothing, whatever its other peers"
    for action in ("Deny", "Pass"):
        assert who_reaches(cluster(policy("p", rule(action, peer))), "x/a") == set()
        assert cluster(policy("p", rule(action, peer))).allows("y/a", "x/b")


def test_46_policies_of_one_priority_are_asked_by_name() -> None:
    accept, deny = policy("a", rule("Accept", Y)), policy("b", rule("Deny", ALL))
    for order in ((accept, deny), (deny, accept)):
        assert who_reaches(cluster(*order), "x/a") == of("y") | {OUTSIDE}
    assert who_reaches(cluster(accept._replace(name="c"), deny), "x/a") == {OUTSIDE}


def test_46_pods_in_the_hosts_network_are_neither_subject_nor_peer() -> None:
    deny = cluster_policy_of("p", f"{{ingress: [{rule('Deny', ALL)}], egress: [{rule('Deny', ALL, end='to')}]}}")
    host, pod = pod_of("x/host", "192.0.2.1", host=True), pod_of("y/pod", "10.1.2.9", node="n2")
    state = Cluster(*SPACES, host, pod, deny)
    assert state.allows("192.0.2.1", "y/pod")
    assert state.allows("y/pod", "192.0.2.1")


def test_46_nodes_are_all_addresses_that_their_status_has() -> None:
    nodes = [node_of("n1", "192.0.2.1", "198.51.100.1", role="a"), node_of("n2", "192.0.2.2", role="b")]
    deny = "{nodes: {matchLabels: {role: a}}}"
    state = cluster(policy("p", egress=(rule("Deny", deny, end="to"),)), *nodes)
    ends = ("192.0.2.1", "198.51.100.1", "192.0.2.2", OUTSIDE)
    assert [state.allows("x/a", end) for end in ends] == [False, False, True, True]
    state = cluster(policy("p", egress=(rule("Deny", "{nodes: {}}", end="to"),)), *nodes)
    assert [state.allows("x/a", end) for end in ends] == [False, False, False, True]


def test_47_networks_are_addresses_of_pods_as_well() -> None:
    state = cluster(policy("p", egress=(rule("Deny", "{networks: [10.1.2.0/24, 203.0.113.7/32]}", end="to"),)))
    assert whom_reaches(state, "x/a") == OTHERS - of("y") - {OUTSIDE}


def test_47_domain_names_are_not_served_an_accept_of_them_matches_nothing() -> None:
    names = rule("Accept", "{domainNames: [a.example]}", Z, end="to")
    accept = policy("p", egress=(names, rule("Deny", "{networks: [0.0.0.0/0]}", end="to")))
    assert whom_reaches(cluster(accept), "x/a") == of("z"), "its other peers are served"
    assert accept.unserved == "spec.egress[0].to[0].domainNames: not supported, matches nothing"
    assert accept.error == ""
    only = policy("p", egress=(rule("Accept", "{domainNames: [a.example]}", end="to"),))
    assert only.egress == ()


@pytest.mark.parametrize(
    ("protocols", "allowed"),
    [
        ("{tcp: {destinationPort: {number: 80}}}", {"TCP/80"}),
        ("{tcp: {destinationPort: {range: {start: 80, end: 81}}}}", {"TCP/80", "TCP/81"}),
        ("{tcp: {}}", {"TCP/80", "TCP/81"}),
        ("{udp: {destinationPort: {number: 80}}}, {sctp: {}}", {"UDP/80", "SCTP/80"}),
        ("{destinationNamedPort: web}", {"TCP/81"}),
        ("", {"TCP/80", "TCP/81", "UDP/80", "SCTP/80", "ICMP"}),
    ],
)
def test_protocols_are_those_of_the_destination(protocols: str, allowed: set[str]) -> None:
    web = pod_of("x/a", "10.1.1.10", ports={"web": 81})
    rules = f"[{rule('Accept', ALL, protocols=protocols)}, {rule('Deny', ALL)}]"
    state = Cluster(*SPACES, web, pod_of("y/b", "10.1.2.9"), cluster_policy_of("p", f"{{ingress: {rules}}}"))
    assert {protocol for protocol in PROTOCOLS if state.allows("y/b", "x/a", protocol)} == allowed


def test_reasons_name_the_rule_that_decides_and_those_before_it() -> None:
    named = "{name: not from y, action: Deny, from: [{namespaces: {matchLabels: {team: y}}}]}"
    state = cluster(policy("guard", rule("Pass", Z), named), ISOLATED)
    verdict = state.verdict("y/a", "x/a")
    assert verdict.reason == "ingress of x/a: denied by ClusterNetworkPolicy guard ingress 1 (not from y)"
    assert verdict.judgements[-1].misses == (("ClusterNetworkPolicy guard ingress 0", "peer"),)
    passed = state.verdict("z/a", "x/a").judgements[-1]
    assert passed.reason == "ingress of x/a: isolated by x/closed; none of its rules matches"
    assert passed.misses == (("ClusterNetworkPolicy guard ingress 0", "passes"),)
    accepted = cluster(policy("guard", rule("Accept", Z))).verdict("z/a", "x/a")
    assert accepted.reason.endswith("ingress of x/a: allowed by ClusterNetworkPolicy guard ingress 0")
