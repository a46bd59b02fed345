"""Tests the evaluator against truth tables of three namespaces with three pods, as Kubernetes' tests do.

A table names for each pod that is not reached by everybody those that reach it.
"""

from __future__ import annotations

import pytest

from tests.unit.policy_objects import Cluster, namespace_of, pod_of, policy_of

PODS = [
    pod_of(f"{space}/{name}", f"10.1.{row}.{column}", labels={"pod": name}, ports=ports)
    for row, space in enumerate("xyz", 1)
    for column, name in enumerate("abc", 10)
    for ports in [
        {f"serve-{port}-{protocol.lower()}": f"{protocol}/{port}" for port in (80, 81) for protocol in ("TCP", "UDP")}
    ]
]
TITLES = [f"{pod.namespace}/{pod.name}" for pod in PODS]
ALL = " ".join(TITLES)
A, NONE = "podSelector: {matchLabels: {pod: a}}", ""
IN, OUT = "policyTypes: [Ingress]", "policyTypes: [Egress]"
Y, NOT_X = "{matchLabels: {ns: y}}", "{matchExpressions: [{key: ns, operator: NotIn, values: [x]}]}"
B, B_OR_C = "{matchLabels: {pod: b}}", "{matchExpressions: [{key: pod, operator: In, values: [b, c]}]}"
NAME = "kubernetes.io/metadata.name"
DENY_X = dict.fromkeys(TITLES[:3], NONE)


def ingress(*peers: str, ports: str = "") -> str:
    return f"{{{A}, {IN}, ingress: [{{from: [{', '.join(peers)}]{', ports: [' + ports + ']' if ports else ''}}}]}}"


def egress(*peers: str, ports: str = "") -> str:
    return f"{{{A}, {OUT}, egress: [{{to: [{', '.join(peers)}]{', ports: [' + ports + ']' if ports else ''}}}]}}"


def but(*titles: str) -> str:
    """Returns all pods but some."""
    return " ".join([title for title in TITLES if title not in titles])


def from_a_to(*titles: str) -> dict[str, str]:
    """Returns the table in which x/a reaches these alone, and everybody else everybody."""
    return {title: but("x/a") for title in TITLES if title not in titles}


BOTH = (
    f"{{{A}, policyTypes: [Ingress, Egress], ingress: [{{from: [{{namespaceSelector: {Y}}}]}}], "
    "egress: [{ports: [{port: 80}]}]}"
)
TABLES: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "default deny ingress": ([f"{{podSelector: {{}}, {IN}}}"], "TCP/80", DENY_X),
    "default deny ingress of UDP": ([f"{{podSelector: {{}}, {IN}}}"], "UDP/80", DENY_X),
    "default deny ingress of SCTP": ([f"{{podSelector: {{}}, {IN}}}"], "SCTP/80", DENY_X),
    "default deny all": (
        ["{podSelector: {}, policyTypes: [Ingress, Egress]}"],
        "TCP/80",
        DENY_X | {title: but("x/a", "x/b", "x/c") for title in TITLES[3:]},
    ),
    "by pod selector": ([ingress(f"{{podSelector: {B}}}")], "TCP/80", {"x/a": "x/b"}),
    "all to a target, beside deny": (
        [f"{{podSelector: {{}}, {IN}}}", ingress("{podSelector: {}, namespaceSelector: {}}")],
        "TCP/80",
        {"x/b": NONE, "x/c": NONE},
    ),
    "from all namespaces": ([ingress("{namespaceSelector: {matchLabels: {}}}")], "TCP/80", {}),
    "from another namespace": ([ingress(f"{{namespaceSelector: {Y}}}")], "TCP/80", {"x/a": "y/a y/b y/c"}),
    "by an expression": (
        [ingress("{podSelector: {matchExpressions: [{key: pod, operator: In, values: [b]}]}}")],
        "TCP/80",
        {"x/a": "x/b"},
    ),
    "pod or namespace": (
        [ingress(f"{{namespaceSelector: {NOT_X}}}", f"{{podSelector: {B}}}")],
        "TCP/80",
        {"x/a": but("x/a", "x/c")},
    ),
    "pod and namespace": (
        [ingress(f"{{namespaceSelector: {NOT_X}, podSelector: {B}}}")],
        "TCP/80",
        {"x/a": "y/b z/b"},
    ),
    "several of both": (
        [ingress(f"{{namespaceSelector: {NOT_X}, podSelector: {B_OR_C}}}")],
        "TCP/80",
        {"x/a": "y/b y/c z/b z/c"},
    ),
    "any of two pods": (
        [ingress(f"{{podSelector: {B}}}", "{podSelector: {matchLabels: {pod: c}}}")],
        "TCP/80",
        {"x/a": "x/b x/c"},
    ),
    "by port": ([ingress(f"{{namespaceSelector: {Y}}}", ports="{port: 81}")], "TCP/81", {"x/a": "y/a y/b y/c"}),
    "by another port": ([ingress(f"{{namespaceSelector: {Y}}}", ports="{port: 80}")], "TCP/81", {"x/a": NONE}),
    "stacked policies": (
        [
            ingress(f"{{namespaceSelector: {Y}}}", ports="{port: 80}"),
            ingress(f"{{namespaceSelector: {Y}}}", ports="{port: 81}"),
        ],
        "TCP/80",
        {"x/a": "y/a y/b y/c"},
    ),
    "allow all": ([f"{{podSelector: {{}}, {IN}, ingress: [{{}}]}}"], "TCP/81", {}),
    "a named port": ([ingress(ports="{port: serve-80-tcp}")], "TCP/80", {}),
    "not another than the named port": ([ingress(ports="{port: serve-80-tcp}")], "TCP/81", {"x/a": NONE}),
    "a named port of another namespace": (
        [ingress(f"{{namespaceSelector: {Y}}}", ports="{port: serve-80-tcp}")],
        "TCP/80",
        {"x/a": "y/a y/b y/c"},
    ),
    "egress to a named port": ([egress(ports="{port: serve-80-tcp}")], "TCP/80", {}),
    "egress not to another": ([egress(ports="{port: serve-80-tcp}")], "TCP/81", from_a_to()),
    "deny egress of a pod": ([f"{{{A}, {OUT}}}"], "TCP/80", from_a_to()),
    "deny egress of a namespace": (
        [f"{{podSelector: {{}}, {OUT}}}"],
        "TCP/80",
        {title: but("x/a", "x/b", "x/c") for title in TITLES},
    ),
    "both directions in one": (
        [
            BOTH,
        ],
        "TCP/81",
        from_a_to() | {"x/a": "y/a y/b y/c"},
    ),
    "egress to a pod of another namespace": (
        [egress(f"{{namespaceSelector: {Y}, podSelector: {{matchLabels: {{pod: a}}}}}}")],
        "TCP/80",
        from_a_to("y/a"),
    ),
    "any port of a protocol": ([ingress(ports="{protocol: TCP}")], "TCP/80", {}),
    "any port of a protocol and not of another": ([ingress(ports="{protocol: TCP}")], "UDP/80", {"x/a": NONE}),
    "egress allow all beside deny": (
        [f"{{podSelector: {{}}, {OUT}}}", f"{{podSelector: {{}}, {OUT}, egress: [{{}}]}}"],
        "TCP/80",
        {},
    ),
    "egress to a block": ([egress("{ipBlock: {cidr: 10.1.2.10/32}}")], "TCP/80", from_a_to("y/a")),
    "egress to a block with an except": (
        [egress("{ipBlock: {cidr: 10.1.1.0/24, except: [10.1.1.11/32]}}")],
        "TCP/80",
        from_a_to("x/a", "x/c"),
    ),
    "an except that another block has": (
        [egress("{ipBlock: {cidr: 10.1.1.0/24, except: [10.1.1.11/32]}}"), egress("{ipBlock: {cidr: 10.1.1.11/32}}")],
        "TCP/80",
        from_a_to("x/a", "x/b", "x/c"),
    ),
    "SCTP is not TCP": ([ingress(ports="{port: 81, protocol: SCTP}")], "TCP/81", {"x/a": NONE}),
    "UDP is not TCP": ([ingress(ports="{port: 81, protocol: UDP}")], "TCP/81", {"x/a": NONE}),
    "by the label of a namespace's name": (
        [ingress("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: y}}}")],
        "TCP/80",
        {"x/a": "y/a y/b y/c"},
    ),
    "egress not to a namespace's name": (
        [egress(f"{{namespaceSelector: {{matchExpressions: [{{key: {NAME}, operator: NotIn, values: [y]}}]}}}}")],
        "TCP/80",
        from_a_to(*[title for title in TITLES if not title.startswith("y")]),
    ),
}


@pytest.mark.parametrize("title", TABLES)
def test_a_truth_table_of_kubernetes_holds(title: str) -> None:
    specs, to, table = TABLES[title]
    policies = [policy_of(f"x/p{position}", spec) for position, spec in enumerate(specs)]
    assert [policy.error for policy in policies if policy.error] == []
    state = Cluster(*[namespace_of(space, ns=space) for space in "xyz"], *PODS, *policies)
    for target in TITLES:
        expected = set(table.get(target, ALL).split()) | {target}
        assert {source for source in TITLES if state.allows(source, target, to)} == expected, target
