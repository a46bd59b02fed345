"""Tests how ClusterNetworkPolicies and Nodes are read: what they mean, and every error with its path."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cni.agent.policy.clusterpolicy import ClusterPolicy, ClusterRule, parse_cluster_policy
from cni.agent.policy.jsonobject import Invalid
from cni.agent.policy.nodes import Node, Nodes, parse_node
from cni.agent.policy.objects import IpBlock, NodePeer, PodPeer, PortRange, Rule
from cni.agent.policy.selectors import EVERYTHING, IN, Requirement, Selector
from cni.protocol.address import parse_ip, parse_net
from tests.unit.policy_objects import cluster_policy_of, node_of

TEAM_A, APP_B = (Selector((Requirement(key, IN, (value,)),)) for key, value in (("team", "a"), ("app", "b")))
EVERY_POD = PodPeer(EVERYTHING, EVERYTHING)
WHOLE = """
tier: Baseline
priority: 1000
subject: {pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: b}}}}
ingress:
- action: Deny
  name: nobody else
  from: [{namespaces: {matchLabels: {team: a}}}, {pods: {podSelector: {matchLabels: {app: b}}}}]
  protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {}}, {destinationNamedPort: dns}]
egress:
- {action: Pass, to: [{networks: [10.1.2.3/8, 'fd00::/8']}, {nodes: {}}]}
- {action: Accept, to: [{namespaces: {}}], protocols: [{sctp: {destinationPort: {range: {start: 1, end: 9}}}}]}
"""
CLOSED = ClusterRule(0, "Deny", Rule())


def test_a_policy_is_read_as_it_is_written() -> None:
    assert cluster_policy_of("p", WHOLE) == ClusterPolicy(
        name="p",
        tier="Baseline",
        priority=1000,
        subject=PodPeer(TEAM_A, APP_B),
        ingress=(
            ClusterRule(
                0,
                "Deny",
                Rule(
                    (PodPeer(TEAM_A, EVERYTHING), PodPeer(EVERYTHING, APP_B)),
                    (
                        PortRange("TCP", 80, 80),
                        PortRange("UDP"),
                        *[PortRange(protocol, name="dns") for protocol in ("TCP", "UDP", "SCTP")],
                    ),
                ),
                "nobody else",
            ),
        ),
        egress=(
            ClusterRule(
                0,
                "Pass",
                Rule((*[IpBlock(parse_net(net), ()) for net in ("10.0.0.0/8", "fd00::/8")], NodePeer(EVERYTHING))),
            ),
            ClusterRule(1, "Accept", Rule((EVERY_POD,), (PortRange("SCTP", 1, 9),))),
        ),
    )


def test_the_least_that_a_policy_says_concerns_no_traffic() -> None:
    value: dict[str, Any] = {"tier": "Admin", "priority": 0, "subject": {"namespaces": {}}}
    policy = parse_cluster_policy({"metadata": {"name": "p"}, "spec": value})
    assert policy == ClusterPolicy("p", "Admin", 0, EVERY_POD)
    assert (policy.namespace, policy.title) == ("", "p")


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("{tier: Middle}", "spec.tier: 'Middle' is neither Admin nor Baseline"),
        ("{priority: null}", "spec.priority: is missing"),
        ("{priority: 1001}", "spec.priority: expected an integer between 0 and 1000"),
        ("{priority: -1}", "spec.priority: expected an integer between 0 and 1000"),
        ("{subject: {}}", "spec.subject.namespaces: one of namespaces, pods has to be there"),
        ("{subject: {nodes: {}}}", "spec.subject.nodes: unknown field"),
        ("{subject: {namespaces: {}, pods: {podSelector: {}}}}", "spec.subject.namespaces and pods: one of"),
        ("{subject: {pods: {namespaceSelector: {}}}}", "spec.subject.pods.podSelector: is missing"),
        ("{subject: {namespaces: {matchLabel: {}}}}", "spec.subject.namespaces.matchLabel: unknown field"),
        ("{subject: {pods: {podSelector: {}, nodes: {}}}}", "spec.subject.pods.nodes: unknown field"),
    ],
)
def test_a_policy_whose_place_or_subject_cannot_be_read_is_an_error(spec: str, error: str) -> None:
    with pytest.raises(Invalid) as raised:
        cluster_policy_of("p", spec)
    assert str(raised.value).startswith(error)


@pytest.mark.parametrize("value", [[], {"metadata": {"name": "A_B"}, "spec": yaml.safe_load(WHOLE)}])
def test_a_policy_needs_a_name(value: Any) -> None:
    with pytest.raises(Invalid):
        parse_cluster_policy(value)


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ("{PEERS}", "spec.ingress[0].action: '' is not one of Accept, Deny, Pass"),
        ("{action: Log, PEERS}", "spec.ingress[0].action: 'Log' is not one of"),
        ("{action: Deny}", "spec.ingress[0].from: is empty"),
        ("{action: Deny, PEERS, name: 1}", "spec.ingress[0].name: expected a text"),
        ("{action: Deny, PEERS, ports: []}", "spec.ingress[0].ports: unknown field"),
        ("{action: Deny, PEERS, protocols: []}", "spec.ingress[0].protocols: is empty"),
        ("{action: Deny, from: [{}]}", "spec.ingress[0].from[0].namespaces: one of namespaces, pods has to be there"),
        ("{action: Deny, from: [{networks: [10.0.0.0/8]}]}", "spec.ingress[0].from[0].networks: unknown field"),
        ("{action: Deny, PEERS, protocols: [{}]}", "spec.ingress[0].protocols[0].tcp: one of tcp, udp, sctp, dest"),
        ("{action: Deny, PEERS, protocols: [{icmp: {}}]}", "spec.ingress[0].protocols[0].icmp: unknown field"),
        (
            "{action: Deny, PEERS, protocols: [{tcp: {sourcePort: {}}}]}",
            "spec.ingress[0].protocols[0].tcp.sourcePort: unknown field",
        ),
        (
            "{action: Deny, PEERS, protocols: [{tcp: {destinationPort: {number: 0}}}]}",
            "spec.ingress[0].protocols[0].tcp.destinationPort.number: expected an integer between 1 and 65535",
        ),
        (
            "{action: Deny, PEERS, protocols: [{tcp: {destinationPort: {}}}]}",
            "spec.ingress[0].protocols[0].tcp.destinationPort.number: one of number, range has to be there",
        ),
        (
            "{action: Deny, PEERS, protocols: [{tcp: {destinationPort: {range: {start: 9, end: 8}}}}]}",
            "spec.ingress[0].protocols[0].tcp.destinationPort.range.end: 8 is less than start 9",
        ),
        (
            "{action: Deny, PEERS, protocols: [{tcp: {destinationPort: {range: {end: 8}}}}]}",
            "spec.ingress[0].protocols[0].tcp.destinationPort.range.end: 8 is less than start nothing",
        ),
        (
            "{action: Deny, PEERS, protocols: [{destinationNamedPort: HTTP}]}",
            "spec.ingress[0].protocols[0].destinationNamedPort: 'HTTP' is not a port's name",
        ),
    ],
)
def test_a_rule_with_an_error_closes(rule: str, error: str) -> None:
    text = rule.replace("PEERS", "from: [{namespaces: {}}]")
    policy = cluster_policy_of("p", f"{{ingress: [{text}]}}")
    assert policy.error.startswith(error)
    assert policy.ingress[0]._replace(name="") == CLOSED
    assert cluster_policy_of("p", f"{{ingress: [{text.replace('Deny', 'Pass')}]}}").ingress[0].action == "Deny"
    accepting = cluster_policy_of("p", f"{{ingress: [{text.replace('Deny', 'Accept')}]}}")
    assert accepting.ingress == (() if "Deny" in text else (CLOSED,))


@pytest.mark.parametrize(
    ("peer", "error"),
    [
        ("{networks: [x]}", "networks[0]: 'x' has no prefix length"),
        ("{networks: []}", "networks: is empty"),
        ("{nodes: {matchLabel: {}}}", "nodes.matchLabel: unknown field"),
        ("{domainNames: [a.example]}", "domainNames: only rules that accept may have them"),
        ("{namespaces: {}, nodes: {}}", "namespaces and nodes: one of"),
    ],
)
def test_a_peer_of_egress_with_an_error_closes_its_rule(peer: str, error: str) -> None:
    policy = cluster_policy_of("p", f"{{egress: [{{action: Deny, to: [{peer}]}}]}}")
    assert policy.error.startswith(f"spec.egress[0].to[0].{error}")
    assert policy.egress == (CLOSED,)


def test_other_rules_are_kept_beside_one_with_an_error() -> None:
    good = "{action: Accept, from: [{namespaces: {}}]}"
    policy = cluster_policy_of("p", f"{{ingress: [{{action: Accept, from: [{{}}]}}, {good}]}}")
    assert policy.ingress == (ClusterRule(1, "Accept", Rule((EVERY_POD,))),)


@pytest.mark.parametrize("rules", ["[1]", "{}", "x"])
def test_rules_that_are_no_rules_deny_everything(rules: str) -> None:
    policy = cluster_policy_of("p", f"{{ingress: {rules}}}")
    assert policy.ingress == (CLOSED,)
    assert policy.egress == ()
    assert policy.error


def test_an_unknown_field_beside_the_rules_is_an_error_and_leaves_the_rules_as_they_are() -> None:
    policy = cluster_policy_of("p", WHOLE + "mode: strict\n")
    assert policy.error == "spec.mode: unknown field"
    assert policy._replace(error="") == cluster_policy_of("p", WHOLE)


def test_a_node_has_all_addresses_of_its_status_and_no_names() -> None:
    assert node_of("n1", "192.0.2.1", "fd00::1", "192.0.2.1", role="a") == Node(
        "n1", (("role", "a"),), (parse_ip("192.0.2.1").packed, parse_ip("fd00::1").packed)
    )
    assert parse_node({"metadata": {"name": "n"}}) == Node("n", (), ())
    with pytest.raises(Invalid, match=r"metadata\.labels: expected an object"):
        parse_node({"metadata": {"name": "n", "labels": []}})


def test_a_selection_of_nodes_follows_them_while_it_is_used() -> None:
    def packed(*texts: str) -> list[bytes]:
        return [parse_ip(text).packed for text in texts]

    nodes, peer = Nodes(), NodePeer(Selector((Requirement("role", IN, ("a",)),)))
    first, second = packed("192.0.2.1", "192.0.2.2")
    nodes.put(node_of("n1", "192.0.2.1", role="a"))
    assert nodes.use(peer) == [first]
    assert nodes.use(peer) == [first]
    nodes.put(node_of("n2", "192.0.2.2", role="a"))
    nodes.put(node_of("n1", "192.0.2.1"))
    assert nodes.take() == {peer: {first: False, second: True}}
    assert nodes.take() == {}
    assert [*nodes.labels_at(second)] == [(("role", "a"),)]
    nodes.release(peer)
    nodes.remove("n2")
    nodes.remove("n3")
    assert nodes.take() == {peer: {second: False}}
    nodes.release(peer)
    nodes.put(node_of("n2", "192.0.2.2", role="a"))
    assert nodes.take() == {}
    assert nodes.use(peer) == [second]
