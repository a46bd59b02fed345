"""Tests the evaluator against what the API's documentation says, statement by statement: a test's name is
the statement, with its number.

Pods a, b, c of the namespaces x, y, z; those of x on node n1, of y on n2, of z on n3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.policy_objects import Cluster, namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod

OUTSIDE = "203.0.113.7"
DENY = "{podSelector: {}, policyTypes: [Ingress, Egress]}"
A, B, C = (f"{{matchLabels: {{app: {name}}}}}" for name in "abc")
PODS = [
    pod_of(f"{space}/{name}", f"10.1.{row}.{10 + column}", f"fd00:{row}::{10 + column}", node=f"n{row}")
    for row, space in enumerate("xyz", 1)
    for column, name in enumerate("abc")
]
SPACES = [namespace_of(name, team=name, **({"shared": "yes"} if name != "x" else {})) for name in "xyz"]


def cluster(*policies: str | NetworkPolicy | Pod | Namespace, instead: list[Pod] | None = None) -> Cluster:
    """Returns a cluster with policies of the namespace x, each as its spec or as an object."""
    objects = [
        policy_of(f"x/p{number}", policy) if isinstance(policy, str) else policy
        for number, policy in enumerate(policies)
    ]
    return Cluster(*SPACES, *(PODS if instead is None else instead), *objects)


def who_reaches(state: Cluster, target: str, to: str = "TCP/80") -> set[str]:
    """Returns all pods, and OUTSIDE, that reach a pod; never itself."""
    ends = [f"{pod.namespace}/{pod.name}" for pod in PODS if f"{pod.namespace}/{pod.name}" != target]
    return {end for end in [*ends, OUTSIDE] if state.allows(end, target, to)}


def whom_reaches(state: Cluster, source: str, to: str = "TCP/80") -> set[str]:
    ends = [f"{pod.namespace}/{pod.name}" for pod in PODS if f"{pod.namespace}/{pod.name}" != source]
    return {end for end in [*ends, OUTSIDE] if state.allows(source, end, to)}


EVERYBODY = {f"{space}/{name}" for space in "xyz" for name in "abc"} | {OUTSIDE}


# 1.1 Selection and isolation


def test_01_a_pod_that_no_policy_selects_may_do_everything() -> None:
    state = cluster(f"{{podSelector: {A}, policyTypes: [Ingress, Egress]}}")
    assert who_reaches(state, "x/b") == EVERYBODY - {"x/a", "x/b"}
    assert whom_reaches(state, "x/b") == EVERYBODY - {"x/a", "x/b"}
    assert state.verdict("x/b", "x/c", "ICMP").reason == "egress of x/b: not isolated; ingress of x/c: not isolated"
    assert who_reaches(state, "y/a") == EVERYBODY - {"x/a", "y/a"}, "of another namespace"


def test_02_a_selected_pod_may_do_the_union_of_what_its_policies_allow_in_any_order() -> None:
    policies = [f"{{podSelector: {A}, ingress: [{{from: [{{podSelector: {peer}}}]}}]}}" for peer in (B, C)]
    for order in (policies, policies[::-1], [*policies, DENY.replace(", Egress", "")]):
        assert who_reaches(cluster(*order), "x/a") == {"x/b", "x/c"}


def test_03_a_connection_needs_egress_of_its_source_and_ingress_of_its_destination() -> None:
    into_b = f"{{podSelector: {B}, ingress: [{{from: [{{podSelector: {A}}}]}}]}}"
    out_of_a = f"{{podSelector: {A}, egress: [{{to: [{{podSelector: {B}}}]}}], policyTypes: [Egress]}}"
    assert cluster(into_b, out_of_a).allows("x/a", "x/b")
    assert not cluster(into_b, out_of_a.replace("app: b", "app: c")).allows("x/a", "x/b")
    assert not cluster(
        into_b.replace("[{podSelector: {matchLabels: {app: a", "[{podSelector: {matchLabels: {app: c"), out_of_a
    ).allows("x/a", "x/b")


@pytest.mark.parametrize(
    ("spec", "isolates"),
    [
        ("{podSelector: {}}", (True, False)),
        ("{podSelector: {}, egress: []}", (True, False)),
        ("{podSelector: {}, egress: [{ports: [{port: 1}]}]}", (True, True)),
    ],
)
def test_04_without_types_ingress_is_isolated_and_egress_if_it_has_rules(
    spec: str, isolates: tuple[bool, bool]
) -> None:
    state = cluster(spec)
    assert (not who_reaches(state, "x/a"), not whom_reaches(state, "x/a") & {"y/a", OUTSIDE}) == isolates


def test_05_a_policy_isolates_no_direction_that_its_types_lack() -> None:
    assert who_reaches(cluster("{policyTypes: [Egress], ingress: []}"), "x/a") == EVERYBODY - {"x/a", "x/b", "x/c"}
    assert whom_reaches(cluster("{policyTypes: [Ingress], egress: []}"), "x/a") == EVERYBODY - {"x/a", "x/b", "x/c"}


@pytest.mark.parametrize(
    ("ingress", "everybody"),
    [("", False), (", ingress: null", False), (", ingress: []", False), (", ingress: [{}]", True)],
)
def test_06_no_rules_let_nothing_in_and_an_empty_rule_lets_in_everything(ingress: str, everybody: bool) -> None:
    state = cluster(f"{{podSelector: {{}}, policyTypes: [Ingress]{ingress}}}")
    assert who_reaches(state, "x/a") == (EVERYBODY - {"x/a"} if everybody else set())


@pytest.mark.parametrize("peers", ["", "from: [], ", "from: null, "])
@pytest.mark.parametrize("ports", ["", "ports: []", "ports: null"])
def test_07_no_peers_are_everybody_and_no_ports_every_port_and_protocol(peers: str, ports: str) -> None:
    state = cluster(f"{{ingress: [{{{peers}{ports}}}]}}")
    for to in ("TCP/1", "UDP/65535", "SCTP/9", "ICMP"):
        assert who_reaches(state, "x/a", to) == EVERYBODY - {"x/a"}
    assert state.allows("192.0.2.2", "x/a"), "another node"


def test_08_peers_and_ports_of_a_rule_are_anded_their_lists_and_the_rules_ored() -> None:
    first = f"{{from: [{{podSelector: {B}}}, {{podSelector: {C}}}], ports: [{{port: 80}}, {{port: 81}}]}}"
    state = cluster(f"{{podSelector: {A}, ingress: [{first}, {{ports: [{{port: 82}}]}}]}}")
    assert [who_reaches(state, "x/a", f"TCP/{port}") for port in (80, 81)] == [{"x/b", "x/c"}] * 2
    assert who_reaches(state, "x/a", "TCP/82") == EVERYBODY - {"x/a"}
    assert who_reaches(state, "x/a", "TCP/83") == set()


SHARED = "{matchLabels: {shared: 'yes'}}"


@pytest.mark.parametrize(
    ("peers", "allowed"),
    [
        (f"{{podSelector: {B}}}", {"x/b"}),
        (f"{{namespaceSelector: {SHARED}}}", {"y/a", "y/b", "y/c", "z/a", "z/b", "z/c"}),
        (f"{{namespaceSelector: {SHARED}, podSelector: {B}}}", {"y/b", "z/b"}),
        (f"{{namespaceSelector: {SHARED}}}, {{podSelector: {B}}}", {"x/b", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c"}),
        ("{podSelector: {}}", {"x/b", "x/c"}),
        ("{namespaceSelector: {}}", EVERYBODY - {"x/a", OUTSIDE}),
        (
            "{namespaceSelector: {matchLabels: {team: y}, matchExpressions: [{key: shared, operator: DoesNotExist}]}}",
            set(),
        ),
        ("{namespaceSelector: {matchExpressions: [{key: shared, operator: NotIn, values: ['yes']}]}}", {"x/b", "x/c"}),
        ("{namespaceSelector: {matchExpressions: [{key: shared, operator: DoesNotExist}]}}", {"x/b", "x/c"}),
        (
            "{namespaceSelector: {matchExpressions: [{key: shared, operator: Exists}]}, podSelector: " + C + "}",
            {"y/c", "z/c"},
        ),
    ],
)
def test_09_a_peer_is_pods_of_the_own_namespace_or_of_selected_ones(peers: str, allowed: set[str]) -> None:
    assert who_reaches(cluster(f"{{podSelector: {A}, ingress: [{{from: [{peers}]}}]}}"), "x/a") == allowed


def test_10_a_namespace_that_gets_a_label_changes_who_is_allowed() -> None:
    policy = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {new: '1'}}}]}]}"
    assert who_reaches(cluster(policy), "x/a") == set()
    assert who_reaches(cluster(policy, namespace_of("y", new="1")), "x/a") == {"y/a", "y/b", "y/c"}


def test_10_every_namespace_has_its_name_as_a_label() -> None:
    policy = "{ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}"
    assert who_reaches(cluster(policy), "x/a") == {"z/a", "z/b", "z/c"}


def test_10_a_namespace_that_is_not_known_yet_is_selected_by_nothing() -> None:
    state = cluster("{ingress: [{from: [{namespaceSelector: {}}]}]}")
    del state.namespaces["y"]
    assert who_reaches(state, "x/a") == EVERYBODY - {"x/a", "y/a", "y/b", "y/c", OUTSIDE}


def test_11_an_ip_block_is_its_network_but_the_excepts_which_take_nothing_from_others() -> None:
    block = "{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.2.0/24]}}"
    peers = f"{{podSelector: {A}, ingress: [{{from: [{block}]}}]}}"
    assert who_reaches(cluster(peers), "x/a") == {"x/b", "x/c", "z/a", "z/b", "z/c"}
    beside = f"{{podSelector: {A}, ingress: [{{from: [{block}, {{ipBlock: {{cidr: 10.1.2.10/32}}}}]}}]}}"
    assert who_reaches(cluster(beside), "x/a") == {"x/b", "x/c", "z/a", "z/b", "z/c", "y/a"}
    assert "y/b" in who_reaches(cluster(peers, "{ingress: [{from: [{ipBlock: {cidr: 10.1.2.0/24}}]}]}"), "x/a")


def test_11_a_block_of_one_family_has_no_address_of_the_other() -> None:
    state = cluster("{ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}")
    assert state.allows("y/a", "x/a")
    assert not state.allows("y/a", "x/a", family=6)
    state = cluster("{ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}")
    assert state.allows("y/a", "x/a", family=6)
    assert not state.allows("y/a", "x/a")


def test_11_a_block_beside_a_selector_is_refused() -> None:
    policy = policy_of("x/p", "{ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}, podSelector: {}}]}]}")
    assert "stands beside a selector" in policy.error
    assert who_reaches(cluster(policy), "x/a") == set()


def test_12_a_policy_isolates_both_families_and_a_selector_has_all_addresses() -> None:
    block = cluster(f"{{podSelector: {A}, ingress: [{{from: [{{ipBlock: {{cidr: 10.1.2.0/24}}}}]}}]}}")
    assert not block.allows("y/a", "x/a", family=6)
    pods = cluster(f"{{podSelector: {A}, ingress: [{{from: [{{podSelector: {B}}}]}}]}}")
    assert [pods.allows("x/b", "x/a", family=family) for family in (4, 6)] == [True, True]


def test_13_a_policy_that_is_gone_or_selects_others_isolates_no_more() -> None:
    assert who_reaches(cluster(DENY), "x/a") == set()
    assert who_reaches(cluster(), "x/a") == EVERYBODY - {"x/a"}
    assert who_reaches(cluster(f"{{podSelector: {B}}}"), "x/a") == EVERYBODY - {"x/a"}


# 1.2 Ports


@pytest.mark.parametrize(
    ("port", "allowed"),
    [
        ("{port: 80}", {"TCP/80"}),
        ("{port: 80, protocol: UDP}", {"UDP/80"}),
        ("{port: 80, endPort: 82}", {"TCP/80", "TCP/81", "TCP/82"}),
        ("{}", {"TCP/1", "TCP/79", "TCP/80", "TCP/81", "TCP/82", "TCP/83", "TCP/65535"}),
        ("{protocol: UDP}", {"UDP/80", "UDP/81"}),
        ("{port: 80}, {port: 81, protocol: UDP}", {"TCP/80", "UDP/81"}),
    ],
)
def test_14_a_port_is_of_tcp_unless_said_and_may_be_a_range_or_all(port: str, allowed: set[str]) -> None:
    state = cluster(f"{{ingress: [{{ports: [{port}]}}]}}")
    asked = [
        "TCP/1",
        "TCP/79",
        "TCP/80",
        "TCP/81",
        "TCP/82",
        "TCP/83",
        "TCP/65535",
        "UDP/80",
        "UDP/81",
        "SCTP/80",
        "ICMP",
    ]
    assert {to for to in asked if state.allows("y/a", "x/a", to)} == allowed


def named(title: str, address: str, **ports: Any) -> Pod:
    return pod_of(title, address, ports=ports)


NAMED = [
    named("x/a", "10.1.1.10", http=8080, dns="UDP/53"),
    named("x/b", "10.1.1.11", http=8081),
    named("y/a", "10.1.2.10", http="UDP/8082", web=8082),
    named("y/b", "10.1.2.11"),
    pod_of("y/host", "192.0.2.2", host=True, ports={"http": 8083}),
]


def test_15_a_named_port_is_that_of_each_destination_pod_itself() -> None:
    state = cluster("{ingress: [{ports: [{port: http}]}]}", instead=NAMED)
    reached = {
        (pod, port) for pod in ("x/a", "x/b") for port in (8080, 8081) if state.allows("y/a", pod, f"TCP/{port}")
    }
    assert reached == {("x/a", 8080), ("x/b", 8081)}


def test_15_the_protocol_of_a_named_port_must_match() -> None:
    state = cluster("{ingress: [{ports: [{port: dns}, {port: http, protocol: UDP}]}]}", instead=NAMED)
    assert not any(state.allows("y/a", "x/a", to) for to in ("TCP/53", "UDP/53", "TCP/8080", "UDP/8080"))
    assert cluster("{ingress: [{ports: [{port: dns, protocol: UDP}]}]}", instead=NAMED).allows("y/a", "x/a", "UDP/53")


def test_16_a_named_port_of_egress_to_anybody_is_every_pod_that_has_it_and_nobody_outside() -> None:
    state = cluster("{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}", instead=NAMED)
    assert state.allows("x/a", "x/b", "TCP/8081")
    assert not state.allows("x/a", "x/b", "TCP/8080")
    asked = [
        ("y/a", "TCP/8082"),
        ("y/a", "UDP/8082"),
        ("y/b", "TCP/8080"),
        (OUTSIDE, "TCP/8080"),
        ("192.0.2.2", "TCP/8083"),
    ]
    assert [pair for pair in asked if state.allows("x/a", *pair)] == []


def test_17_a_name_that_no_pod_has_matches_nothing_but_isolates() -> None:
    assert who_reaches(cluster("{ingress: [{ports: [{port: nobody}]}]}"), "x/a") == set()


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_18_a_protocol_allows_no_other(protocol: str) -> None:
    state = cluster(f"{{ingress: [{{ports: [{{port: 80, protocol: {protocol}}}]}}]}}")
    assert [candidate for candidate in ("TCP", "UDP", "SCTP") if state.allows("y/a", "x/a", f"{candidate}/80")] == [
        protocol
    ]


def test_18_an_unknown_protocol_matches_nothing_and_isolates() -> None:
    state = cluster("{ingress: [{ports: [{protocol: ICMP}, {protocol: tcp, port: 80}]}]}")
    assert [to for to in ("TCP/80", "ICMP", "ICMP/0", "tcp/80") if state.allows("y/a", "x/a", to)] == []


# 1.3 Who is who

HOST = [
    pod_of("x/host", "192.0.2.1", host=True, labels={"app": "a"}),
    pod_of("x/a", "10.1.1.10"),
    pod_of("x/far", "10.1.2.9", node="n2", labels={"app": "a"}),
]


def test_20_host_pods_are_neither_selected_nor_peers_but_in_ip_blocks() -> None:
    state = cluster(DENY, instead=HOST)
    assert state.allows("192.0.2.1", OUTSIDE), "not selected"
    assert state.allows(OUTSIDE, "192.0.2.1"), "not selected"
    by_label = cluster("{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}", instead=HOST)
    assert [by_label.allows(source, "x/far") for source in ("x/a", "192.0.2.1")] == [True, False]
    by_block = cluster("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.1/32}}]}]}", instead=HOST)
    assert by_block.allows("192.0.2.1", "x/far")


def test_21_a_pods_own_node_reaches_it_by_each_of_its_addresses() -> None:
    state = cluster(DENY)
    assert state.allows("192.0.2.1", "x/a")
    assert state.allows("10.1.1.1", "x/a")
    assert state.allows("2001:db8::1", "x/a", family=6)
    assert state.verdict("192.0.2.1", "x/a").reason == "from its own node everything reaches a pod"


def test_22_egress_to_the_own_node_is_judged_like_any_other() -> None:
    assert not cluster(DENY).allows("x/a", "192.0.2.1")
    assert cluster("{policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.1/32}}]}]}").allows(
        "x/a", "192.0.2.1"
    )


def test_22_an_option_opens_the_own_node_to_pods_and_no_other() -> None:
    state = cluster(DENY)
    state.opens_node = True
    assert state.allows("x/a", "192.0.2.1")
    assert not state.allows("x/a", "192.0.2.2")


def test_23_other_nodes_are_anybody() -> None:
    assert not cluster(DENY).allows("192.0.2.2", "x/a")
    assert not cluster(DENY).allows("10.1.2.1", "x/a")
    assert cluster("{ingress: [{from: [{ipBlock: {cidr: 10.1.2.1/32}}]}]}").allows("10.1.2.1", "x/a")


def test_24_a_pod_reaches_itself() -> None:
    assert cluster(DENY).verdict("x/a", "x/a").reason == (
        "egress of x/a: a pod reaches itself; ingress of x/a: a pod reaches itself"
    )
    assert cluster(DENY).allows("x/a", "x/a", family=6)


def test_25_a_finished_pod_is_nobody_and_its_address_belongs_to_the_pod_that_runs() -> None:
    old = [pod_of("x/old", "10.1.1.10", phase=phase, labels={"app": "old"}) for phase in ("Succeeded", "Failed")]
    new = pod_of("x/new", "10.1.1.10", labels={"app": "new"})
    target = pod_of("x/target", "10.1.1.11", labels={"app": "target"})
    into = "{podSelector: {matchLabels: {app: target}}, ingress: [{from: [{podSelector: {matchLabels: {app: %s}}}]}]}"
    for objects in ([*old, new, target], [new, *old, target]):
        assert not cluster(into % "old", instead=objects).allows("10.1.1.10", "x/target")
        assert cluster(into % "new", instead=objects).allows("10.1.1.10", "x/target")
        assert not cluster("{podSelector: {matchLabels: {app: new}}}", instead=objects).allows(OUTSIDE, "10.1.1.10")
        assert cluster("{podSelector: {matchLabels: {app: old}}}", instead=objects).allows(OUTSIDE, "10.1.1.10")


def test_25_a_terminating_pod_is_still_a_pod() -> None:
    assert not cluster(DENY, instead=[pod_of("x/a", "10.1.1.10", phase="Running")]).allows(OUTSIDE, "x/a")


# 1.4 Connections and NAT, as far as a verdict depends on them


def test_29_udp_is_judged_as_tcp() -> None:
    state = cluster(f"{{ingress: [{{from: [{{podSelector: {B}}}], ports: [{{protocol: UDP, port: 53}}]}}]}}")
    assert who_reaches(state, "x/a", "UDP/53") == {"x/b"}


def test_38_a_policy_that_cannot_be_understood_closes_its_pods_and_no_others() -> None:
    broken = f"{{podSelector: {A}, ingress: [{{}}, {{form: []}}]}}"
    state = cluster(broken, f"{{podSelector: {B}, ingress: [{{from: [{{podSelector: {C}}}]}}]}}")
    assert who_reaches(state, "x/a") == set()
    assert who_reaches(state, "x/b") == {"x/c"}
    assert whom_reaches(state, "x/a") == EVERYBODY - {"x/a", "x/b"}, "its type is Ingress alone"


# Reasons


def test_the_reason_of_a_denial_names_every_policy_that_isolates() -> None:
    state = cluster(f"{{podSelector: {A}, ingress: [{{from: [{{podSelector: {B}}}]}}]}}", DENY)
    verdict = state.verdict("y/a", "x/a")
    assert verdict.reason == "ingress of x/a: isolated by x/p0, x/p1; none of their rules match"
    assert verdict.judgements[-1].misses == (("x/p0 ingress 0", "peer"),)
    assert [judgement.allowed for judgement in verdict.judgements] == [True, False]


def test_the_reason_of_a_denial_counts_one_policy_and_no_rules_as_such() -> None:
    policy = f"{{podSelector: {A}, ingress: [{{ports: [{{port: 1}}, {{protocol: UDP}}]}}]}}"
    assert cluster(policy).verdict("y/a", "x/a").reason == "ingress of x/a: isolated by x/p0; none of its rules matches"
    assert cluster(DENY).verdict("y/a", "x/a").reason == "ingress of x/a: isolated by x/p0; no rules in its ingress"
    assert cluster(DENY).verdict("x/a", "x/b").reason == (
        "egress of x/a: isolated by x/p0; no rules in its egress; "
        "ingress of x/b: isolated by x/p0; no rules in its ingress"
    )
    assert cluster(policy).verdict("y/a", "x/a").judgements[-1].misses == (("x/p0 ingress 0", "port"),)
    assert cluster(policy).verdict("y/a", "x/a", "SCTP/1").judgements[-1].misses == (("x/p0 ingress 0", "protocol"),)


def test_the_reason_of_a_permission_names_the_rule() -> None:
    state = cluster(f"{{podSelector: {A}, ingress: [{{ports: [{{port: 1}}]}}, {{ports: [{{port: 80}}]}}]}}")
    verdict = state.verdict("y/a", "x/a")
    assert verdict.reason == "egress of y/a: not isolated; ingress of x/a: allowed by x/p0 ingress 1"
    assert verdict.judgements[-1].misses == (("x/p0 ingress 0", "port"),)
    assert cluster(DENY).verdict(OUTSIDE, "192.0.2.1").reason == "neither end is a pod that policies can select"
