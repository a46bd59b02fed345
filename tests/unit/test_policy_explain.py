"""Tests explanations of verdicts: which direction this node judges, which rules do not match, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.agent.policy.basetable import PENDING, TableOptions
from cni.agent.policy.classes import ClassChain
from cni.agent.policy.compiler import suffix
from cni.agent.policy.describe import port_text, rule_text
from cni.agent.policy.explain import MISSES_SHOWN, Element, Miss, explain, show
from cni.agent.policy.index import Index
from cni.agent.policy.objects import EGRESS, INGRESS, NetworkPolicy, PortRange
from cni.agent.policy.tracker import Tracker
from cni.protocol.address import IP, parse_ip
from tests.unit.policy_objects import cluster_policy_of, namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from cni.agent.policy.explain import Explanation

OUTSIDE = "203.0.113.7"
WEB = "{podSelector: {matchLabels: {app: web}}}"
FROM_WEB = f"{{from: [{WEB}], ports: [{{port: 80}}, {{port: 90, endPort: 99, protocol: UDP}}]}}"
LABELS = (
    "{key: a, operator: In, values: [x, y]}, {key: b, operator: NotIn, values: [x]}",
    "{key: c, operator: NotIn, values: [x, y]}, {key: d, operator: Exists}, {key: e, operator: DoesNotExist}",
)
FROM_BLUE = "{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}"
PODS = {
    "shop/db": pod_of("shop/db", "10.1.0.2", "fd00::2", ports={"http": 80}),
    "shop/web": pod_of("shop/web", "10.1.0.3", "fd00::3"),
    "shop/far": pod_of("shop/far", "10.9.0.4", node="n2"),
}


class Scene:
    """An index and its tracker, with the pods above."""

    def __init__(self, **policies: str) -> None:
        self.index = Index("n1", [parse_ip("10.1.0.1").packed])
        for namespace in (namespace_of("shop", team="red"), namespace_of("sky", team="blue")):
            self.index.put_namespace(namespace)
        for pod in PODS.values():
            self.index.put_pod(pod)
        for name, spec in policies.items():
            self.index.put_policy(policy_of(f"shop/{name}", spec))
        self.tracker = Tracker(self.index, TableOptions())
        self.tracker.update()

    def why(self, source: str, destination: str, protocol: str = "TCP", port: int = 80) -> Explanation:
        return explain(self.index, address(source), address(destination), protocol, port)


def address(end: str) -> IP:
    return IP.from_packed(PODS[end].addresses[0]) if end in PODS else parse_ip(end)


def isolating(*rules: str, direction: str = "ingress", app: str = "db") -> str:
    types = f"policyTypes: [{direction.capitalize()}]"
    return f"{{podSelector: {{matchLabels: {{app: {app}}}}}, {types}, {direction}: [{', '.join(rules)}]}}"


def misses(explanation: Explanation, position: int = -1) -> dict[str, str]:
    return {miss.rule: miss.because for miss in explanation.directions[position].misses}


def test_what_no_policy_isolates_is_allowed_and_in_no_map() -> None:
    explanation = Scene().why("shop/web", "shop/db")
    assert (explanation.verdict, explanation.reason) == (
        "allowed", "egress of shop/web: not isolated; ingress of shop/db: not isolated",
    )  # fmt: skip
    assert [(direction.direction, direction.pod, direction.verdict) for direction in explanation.directions] == [
        (EGRESS, "shop/web", "allowed"),
        (INGRESS, "shop/db", "allowed"),
    ]
    assert [direction.element for direction in explanation.directions if direction.element] == [
        Element("egress4", address("shop/web"), ""),
        Element("ingress4", address("shop/db"), ""),
    ]


def test_each_rule_that_does_not_match_is_told_with_why_and_with_what_it_allows() -> None:
    scene = Scene(closed=isolating(), db=isolating(FROM_BLUE, FROM_WEB))
    explanation = scene.why("shop/web", "shop/db", port=81)
    assert explanation.verdict == "denied"
    assert explanation.reason == "ingress of shop/db: isolated by shop/closed, shop/db; none of their rules match"
    assert [(miss.rule, miss.because, miss.text) for miss in explanation.directions[1].misses] == [
        ("shop/db ingress 0", "peer", "from all pods in namespaces team=blue, every port and protocol"),
        ("shop/db ingress 1", "port", "from pods app=web in shop, TCP 80, UDP 90-99"),
        ("shop/closed", "no rules", ""),
    ]
    assert misses(scene.why("shop/web", "shop/db", "SCTP"))["shop/db ingress 1"] == "protocol"
    element = explanation.directions[1].element
    assert element is not None
    assert element.chain == ClassChain(INGRESS, (), ("shop/closed", "shop/db"), ()).name
    assert element.chain in scene.tracker.table.chains


def test_the_rule_that_allows_is_told() -> None:
    explanation = Scene(closed=isolating(), db=isolating(FROM_BLUE, FROM_WEB)).why("shop/web", "shop/db")
    assert explanation.verdict == "allowed"
    rule = explanation.directions[1].rule
    assert rule is not None
    assert (rule.rule, rule.text) == ("shop/db ingress 1", "from pods app=web in shop, TCP 80, UDP 90-99")
    assert misses(explanation) == {"shop/db ingress 0": "peer"}


def test_without_a_port_every_port_and_protocol_is_meant() -> None:
    scene = Scene(db=isolating(FROM_WEB))
    assert scene.why("shop/web", "shop/db", "", 0).verdict == "denied"
    assert misses(scene.why("shop/web", "shop/db", "", 0)) == {"shop/db ingress 0": "protocol"}
    assert Scene(db=isolating("{}")).why("shop/web", "shop/db", "", 0).verdict == "allowed"


def test_another_nodes_pod_is_judged_there() -> None:
    scene = Scene(db=isolating(), far=isolating(app="far", direction="egress"))
    explanation = scene.why("shop/far", "shop/db")
    assert explanation.verdict == "denied"
    assert explanation.reason.startswith("ingress of shop/db: isolated by shop/db")
    assert (explanation.source.here, explanation.destination.here) == (False, True)
    assert [(direction.verdict, direction.element is None) for direction in explanation.directions] == [
        ("elsewhere", True),
        ("denied", False),
    ]

    leaving = scene.why("shop/web", "shop/far")
    assert leaving.verdict == "allowed"
    assert leaving.reason == "egress of shop/web: not isolated; ingress of shop/far: judged by its own node"
    assert scene.why("shop/far", OUTSIDE).verdict == "elsewhere"


def test_a_connection_without_a_judgement_has_its_reason() -> None:
    scene = Scene(db=isolating())
    for source, destination, reason in (
        ("10.1.0.1", "shop/db", "from its own node everything reaches a pod"),
        (OUTSIDE, "203.0.113.8", "neither end is a pod that policies can select"),
    ):
        explanation = scene.why(source, destination)
        assert (explanation.verdict, explanation.reason, explanation.directions) == ("allowed", reason, ())


def test_a_pod_reaches_itself_through_a_service_unless_a_cluster_policy_denies_it() -> None:
    scene = Scene(db=isolating())
    explanation = scene.why("shop/db", "shop/db")
    assert (explanation.verdict, explanation.reason) == (
        "allowed",
        "egress of shop/db: not isolated; ingress of shop/db: a pod reaches itself",
    )
    assert [direction.misses for direction in explanation.directions] == [(), ()]
    passing = "{action: Pass, from: [{pods: {podSelector: {matchLabels: {app: far}}}}]}"
    ingress_rules = f"[{passing}, {{action: Deny, from: [{{namespaces: {{}}}}]}}]"
    egress_rules = "[{action: Accept, to: [{nodes: {}}]}]"
    scene.index.put_policy(cluster_policy_of("guard", f"{{ingress: {ingress_rules}, egress: {egress_rules}}}"))
    explanation = scene.why("shop/db", "shop/db")
    assert explanation.reason == "ingress of shop/db: denied by ClusterNetworkPolicy guard ingress 1"
    egress, ingress = explanation.directions
    assert [miss.text for miss in egress.misses] == ["accept to all nodes, every port and protocol"]
    assert ingress.rule == Miss(
        "ClusterNetworkPolicy guard ingress 1", "", "deny from all pods in all namespaces, every port and protocol"
    )
    (passed,) = ingress.misses
    assert passed.text == "pass from pods app=far in all namespaces, every port and protocol"
    assert ingress.element is not None
    assert [part.split("/")[0] for part in ingress.element.parts] == ["admin", "policy"]


def test_a_pod_is_shown_with_the_policies_of_the_tiers() -> None:
    scene = Scene(db=isolating())
    rules = "egress: [{action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}, {action: Log, to: [{nodes: {}}]}]"
    scene.index.put_policy(cluster_policy_of("guard", f"{{{rules}}}"))
    scene.tracker.update()
    pod = scene.index.pod_named("shop", "db")
    assert pod is not None
    (view,) = show(scene.index, scene.tracker, pod).policies[EGRESS]
    assert (view.title, view.tier, view.chain.split("/")[0]) == ("guard", "Admin", "admin")
    assert view.error.startswith("spec.egress[1].action")
    assert view.rules == (
        "deny to nodes role=edge, every port and protocol",
        "deny to anybody, every port and protocol",
    )
    assert [(peer_set.size, peer_set.text) for peer_set in view.sets] == [(0, "nodes role=edge")] * 2


def test_a_pod_that_the_store_does_not_know_yet_is_closed() -> None:
    scene = Scene()
    scene.index.attach("shop", "new", (parse_ip("10.1.0.9").packed,))
    for ends, direction, map_name in (
        (("10.1.0.9", "shop/db"), EGRESS, "egress4"),
        (("shop/web", "10.1.0.9"), INGRESS, "ingress4"),
    ):
        explanation = scene.why(*ends)
        assert explanation.verdict == "denied"
        assert "10.1.0.9: the pod is attached, and not known" in explanation.reason
        [pending] = [judgement for judgement in explanation.directions if judgement.verdict == "denied"]
        assert (pending.direction, pending.element) == (
            direction,
            Element(map_name, address("10.1.0.9"), PENDING[suffix(direction)]),
        )
    assert scene.why("10.1.0.1", "10.1.0.9").verdict == "allowed", "from its own node"
    assert scene.why("10.1.0.9", "10.1.0.9").verdict == "allowed", "itself"
    opened = explain(scene.index, address("shop/web"), address("10.1.0.9"), "TCP", 80, unknown="allowed")
    assert opened.verdict == "allowed", "by --policy-unknown"


def test_a_policy_that_cannot_be_understood_is_told_with_its_error() -> None:
    explanation = Scene(broken=isolating("{ports: [{port: 0}]}")).why("shop/web", "shop/db")
    [miss] = explanation.directions[1].misses
    assert (miss.rule, miss.because) == ("shop/broken", "error")
    assert "spec.ingress[0].ports[0].port" in miss.text


def test_a_thousand_rules_are_counted_and_not_all_told() -> None:
    explanation = Scene(many=isolating(*["{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}"] * (MISSES_SHOWN + 7))).why(
        "shop/web", "shop/db"
    )
    assert (len(explanation.directions[1].misses), explanation.directions[1].left_out) == (MISSES_SHOWN, 7)


def test_a_pod_is_shown_with_policies_and_the_sizes_of_their_sets() -> None:
    block = "{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}], ports: [{port: http}]}"
    scene = Scene(closed=isolating(), db=isolating(FROM_WEB, block), far=isolating(app="far"))
    view = show(scene.index, scene.tracker, PODS["shop/db"])
    assert view.here
    assert view.policies[EGRESS] == ()
    closed, db = view.policies[INGRESS]
    assert (closed.title, closed.chain, closed.rules, closed.sets) == ("shop/closed", "policy/shop/closed/in", (), ())
    assert db.rules == (
        "from pods app=web in shop, TCP 80, UDP 90-99",
        "from 192.0.2.0/24 without 192.0.2.128/25, TCP http",
    )
    assert {(peer_set.text, peer_set.size) for peer_set in db.sets if peer_set.name.endswith("_4")} == {
        ("pods app=web in shop", 1), ("networks", 1), ("ports http of TCP", 1),
    }  # fmt: skip
    assert [(element.map_name, element.chain != "") for element in view.elements[INGRESS]] == [
        ("ingress4", True),
        ("ingress6", True),
    ]
    assert [element.chain for element in view.elements[EGRESS]] == ["", ""]

    far = show(scene.index, scene.tracker, PODS["shop/far"]._replace(node=""))
    assert not far.here
    assert [policy.title for policy in far.policies[INGRESS]] == ["shop/far"]
    assert far.elements == {EGRESS: (), INGRESS: ()}


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("{}", "from anybody, every port and protocol"),
        ("{from: [{podSelector: {}}]}", "from all pods in shop, every port and protocol"),
        ("{from: [{namespaceSelector: {}}], ports: [{protocol: UDP}]}", "from all pods in all namespaces, UDP"),
        ("{from: [{ipBlock: {cidr: 'fd00::/8'}}], ports: [{port: 1}]}", "from fd00::/8, TCP 1"),
        (
            f"{{from: [{{podSelector: {{matchExpressions: [{', '.join(LABELS)}]}}}}]}}",
            "from pods a in (x,y),b!=x,c notin (x,y),d,!e in shop, every port and protocol",
        ),
        (
            "{from: [" + ", ".join([f"{{ipBlock: {{cidr: 10.{n}.0.0/16}}}}" for n in range(10)]) + "]}",
            "from " + " or ".join([f"10.{n}.0.0/16" for n in range(8)]) + " and 2 more, every port and protocol",
        ),
    ],
)
def test_a_rule_is_told_as_people_say_it(rule: str, text: str) -> None:
    policy = policy_of("shop/p", isolating(rule))
    assert isinstance(policy, NetworkPolicy)
    assert policy.ingress
    assert rule_text(policy.ingress[0], INGRESS) == text
    assert rule_text(policy.ingress[0], EGRESS) == text.replace("from", "to", 1)


def test_a_range_of_ports_names_both_ends() -> None:
    assert [port_text(PortRange("TCP", 1, 2)), port_text(PortRange("SCTP", name="x"))] == ["TCP 1-2", "SCTP x"]
