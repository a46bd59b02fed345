"""Tests how Namespaces, Pods and NetworkPolicies are read: defaults, and every error with its path."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from cni.agent.policy.jsonobject import Invalid
from cni.agent.policy.objects import (
    IpBlock,
    NamedPort,
    NetworkPolicy,
    Pod,
    PodPeer,
    PortRange,
    Rule,
    parse_namespace,
    parse_pod,
    parse_policy,
)
from cni.agent.policy.selectors import EVERYTHING, IN, Requirement, Selector
from cni.protocol.address import IP, parse_ip, parse_net
from tests.unit.policy_objects import policy_of

WEB = Selector((Requirement("app", IN, ("web",)),))
POD = """
metadata: {namespace: shop, name: web-0, labels: {tier: front, app: web}}
spec:
  nodeName: n1
  containers:
  - ports: [{name: http, containerPort: 8080}, {containerPort: 9}, {name: dns, containerPort: 53, protocol: UDP}]
  - {}
  initContainers:
  - {restartPolicy: Always, ports: [{name: proxy, containerPort: 15001}]}
  - {ports: [{name: setup, containerPort: 1}]}
status:
  phase: Running
  podIP: 10.1.0.5
  podIPs: [{ip: 10.1.0.5}, {ip: "fd00::5"}, {ip: 10.1.0.5}]
"""


def test_a_namespace_has_its_name_as_a_label_even_if_it_says_another() -> None:
    parsed = parse_namespace({"metadata": {"name": "a", "labels": {"z": "1", "kubernetes.io/metadata.name": "b"}}})
    assert parsed.labels == (("kubernetes.io/metadata.name", "a"), ("z", "1"))
    assert parse_namespace({"metadata": {"name": "a"}}).labels == (("kubernetes.io/metadata.name", "a"),)


def test_a_pod_has_its_addresses_and_the_named_ports_of_containers_that_go_on_running() -> None:
    assert parse_pod(yaml.safe_load(POD)) == Pod(
        namespace="shop",
        name="web-0",
        labels=(("app", "web"), ("tier", "front")),
        addresses=(parse_ip("10.1.0.5").packed, parse_ip("fd00::5").packed),
        ports=(NamedPort("dns", "UDP", 53), NamedPort("http", "TCP", 8080), NamedPort("proxy", "TCP", 15001)),
        host_network=False,
        finished=False,
        node="n1",
    )


@pytest.mark.parametrize(
    ("status", "addresses"),
    [
        ({}, ()),
        ({"podIP": ""}, ()),
        ({"podIP": "10.1.0.5"}, ("10.1.0.5",)),
        ({"podIP": "10.1.0.5", "podIPs": []}, None),
    ],
)
def test_a_pod_without_addresses_yet_or_with_podip_alone_is_read(
    status: dict[str, Any], addresses: tuple[str, ...] | None
) -> None:
    pod = parse_pod({"metadata": {"name": "a"}, "spec": {}, "status": status})
    assert pod.addresses == tuple(parse_ip(text).packed for text in addresses or [status.get("podIP", "")] if text)
    assert pod.namespace == "default"


@pytest.mark.parametrize(
    ("host", "phase", "subject"),
    [
        (False, "Running", True),
        (False, "Pending", True),
        (True, "Running", False),
        (False, "Succeeded", False),
        (False, "Failed", False),
    ],
)
def test_host_pods_and_finished_pods_are_selected_by_nothing(host: bool, phase: str, subject: bool) -> None:
    pod = parse_pod({"metadata": {"name": "a"}, "spec": {"hostNetwork": host}, "status": {"phase": phase}})
    assert pod.is_subject is subject


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ([], "expected an object"),
        ({}, "metadata.name: '' is not a name"),
        ({"metadata": {"name": "A"}}, "metadata.name: 'A' is not a name"),
        ({"metadata": {"name": "a" * 254}}, "metadata.name"),
        ({"metadata": {"name": "a", "namespace": "b" * 64}}, "metadata.namespace"),
        ({"metadata": {"name": "a", "labels": {"b": 1}}}, "metadata.labels.b: expected a text"),
        ({"metadata": {"name": "a"}, "spec": []}, "spec: expected an object"),
        ({"metadata": {"name": "a"}, "spec": {"hostNetwork": "yes"}}, "spec.hostNetwork: expected true or false"),
        ({"metadata": {"name": "a"}, "spec": {"containers": [1]}}, "spec.containers[0]: expected an object"),
        (
            {"metadata": {"name": "a"}, "spec": {"containers": [{"ports": [{"name": "b", "containerPort": 0}]}]}},
            "spec.containers[0].ports[0].containerPort: expected an integer between 1 and 65535",
        ),
        ({"metadata": {"name": "a"}, "status": {"podIPs": [{"ip": "x"}]}}, "status.podIPs[0].ip: 'x' is not an IP"),
        ({"metadata": {"name": "a"}, "status": {"podIP": "10.1"}}, "status.podIP: '10.1' is not an IP address"),
    ],
)
def test_a_pod_that_cannot_be_understood_is_an_error_with_its_path(value: Any, error: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse_pod(value)
    assert str(raised.value).startswith(error)


def test_all_errors_of_an_object_are_told_together() -> None:
    with pytest.raises(Invalid) as raised:
        parse_namespace({"metadata": {"name": "", "labels": 1}})
    assert str(raised.value).count("metadata.") == 2


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("{}", (), None),
        ("{policyTypes: []}", (), None),
        ("{policyTypes: null, egress: null}", (), None),
        ("{egress: []}", (), None),
        ("{egress: [{}]}", (), (Rule(),)),
        ("{ingress: [{}]}", (Rule(),), None),
        ("{policyTypes: [Egress]}", None, ()),
        ("{policyTypes: [Egress], ingress: [{}]}", None, ()),
        ("{policyTypes: [Ingress], egress: [{}]}", (), None),
        ("{policyTypes: [Ingress, Egress]}", (), ()),
        ("{ingress: [{from: [], ports: []}]}", (Rule(),), None),
        ("{ingress: [{from: null, ports: null}]}", (Rule(),), None),
    ],
)
def test_a_policy_isolates_the_directions_that_the_api_server_would_fill_in(
    spec: str, ingress: tuple[Rule, ...] | None, egress: tuple[Rule, ...] | None
) -> None:
    assert policy_of("a/b", spec) == NetworkPolicy("a", "b", EVERYTHING, ingress, egress)


@pytest.mark.parametrize(
    ("peer", "meaning"),
    [
        ("{podSelector: {}}", PodPeer("a", EVERYTHING)),
        ("{podSelector: {matchLabels: {app: web}}}", PodPeer("a", WEB)),
        ("{namespaceSelector: {}}", PodPeer(EVERYTHING, EVERYTHING)),
        ("{namespaceSelector: {}, podSelector: null}", PodPeer(EVERYTHING, EVERYTHING)),
        ("{namespaceSelector: {matchLabels: {app: web}}, podSelector: {}}", PodPeer(WEB, EVERYTHING)),
        ("{ipBlock: {cidr: 10.1.2.3/8}}", IpBlock(parse_net("10.0.0.0/8"), ())),
        (
            "{ipBlock: {cidr: 'fd00::/16', except: ['fd00:2::/32', 'fd00:1::/32', 'fd00:2::/32']}}",
            IpBlock(parse_net("fd00::/16"), (parse_net("fd00:1::/32"), parse_net("fd00:2::/32"))),
        ),
    ],
)
def test_a_peer_is_read(peer: str, meaning: PodPeer | IpBlock) -> None:
    policy = policy_of("a/b", f"{{ingress: [{{from: [{peer}]}}], egress: [{{to: [{peer}]}}]}}")
    assert policy.error == ""
    assert policy.rules("Ingress") == policy.rules("Egress") == (Rule((meaning,)),)


@pytest.mark.parametrize(
    ("port", "meaning"),
    [
        ("{}", PortRange("TCP", 0, 65535)),
        ("{protocol: UDP}", PortRange("UDP", 0, 65535)),
        ("{port: 80}", PortRange("TCP", 80, 80)),
        ("{port: 80, endPort: 80}", PortRange("TCP", 80, 80)),
        ("{port: 80, endPort: 90, protocol: SCTP}", PortRange("SCTP", 80, 90)),
        ("{port: http}", PortRange("TCP", name="http")),
        ("{port: 1, protocol: ICMP}", PortRange("ICMP", 1, 1)),
    ],
)
def test_a_port_is_read(port: str, meaning: PortRange) -> None:
    policy = policy_of("a/b", f"{{ingress: [{{ports: [{port}]}}]}}")
    assert policy.error == ""
    assert policy.ingress == (Rule((), (meaning,)),)


def test_an_ip_block_contains_what_none_of_its_excepts_does() -> None:
    block = IpBlock(parse_net("10.0.0.0/8"), (parse_net("10.1.0.0/16"),))
    asked = ["10.0.0.1", "10.1.0.1", "11.0.0.1", "fd00::1"]
    assert [block.contains(parse_ip(text)) for text in asked] == [True, False, False, False]
    assert not block.contains(IP(6, 10 << 24))


ONE_RULE = "{{ingress: [{{{}}}]}}"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("{ingres: [{}]}", "spec.ingres: unknown field"),
        ("{policyTypes: [Ingress, Both]}", "spec.policyTypes: 'Both' is neither Ingress nor Egress"),
        ("{ingress: {}}", "spec.ingress: expected a list"),
        ("{ingress: [1]}", "spec.ingress[0]: expected an object"),
        (ONE_RULE.format("form: []"), "spec.ingress[0].form: unknown field"),
        (ONE_RULE.format("to: []"), "spec.ingress[0].to: unknown field"),
        (ONE_RULE.format("from: [{}]"), "spec.ingress[0].from[0].ipBlock: neither it nor a selector is there"),
        (ONE_RULE.format("from: [{nodes: {}}]"), "spec.ingress[0].from[0].nodes: unknown field"),
        (
            ONE_RULE.format("from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]"),
            "spec.ingress[0].from[0].ipBlock: stands beside a selector",
        ),
        (ONE_RULE.format("from: [{ipBlock: {}}]"), "spec.ingress[0].from[0].ipBlock.cidr: '' has no prefix length"),
        (ONE_RULE.format("from: [{ipBlock: {cidr: x/8}}]"), "spec.ingress[0].from[0].ipBlock.cidr: 'x' is not an IP"),
        (
            ONE_RULE.format("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]"),
            "spec.ingress[0].from[0].ipBlock.except[0]: 11.0.0.0/9 is not a part of 10.0.0.0/8",
        ),
        (
            ONE_RULE.format("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]"),
            "spec.ingress[0].from[0].ipBlock.except[0]: 10.0.0.0/8 is not a part of 10.0.0.0/8",
        ),
        (
            ONE_RULE.format("from: [{podSelector: {matchLabels: {app: 1}}}]"),
            "spec.ingress[0].from[0].podSelector.matchLabels.app: expected a text",
        ),
        (ONE_RULE.format("ports: [{port: 0}]"), "spec.ingress[0].ports[0].port: expected an integer between 1 and"),
        (ONE_RULE.format("ports: [{port: true}]"), "spec.ingress[0].ports[0].port: expected an integer between"),
        (ONE_RULE.format("ports: [{port: '80'}]"), "spec.ingress[0].ports[0].port: '80' is not a port's name"),
        (ONE_RULE.format("ports: [{port: HTTP}]"), "spec.ingress[0].ports[0].port: 'HTTP' is not a port's name"),
        (ONE_RULE.format("ports: [{port: a-name-that-is-long}]"), "spec.ingress[0].ports[0].port: 'a-name"),
        (ONE_RULE.format("ports: [{port: a, endPort: 9}]"), "spec.ingress[0].ports[0].endPort: needs a port by its"),
        (ONE_RULE.format("ports: [{endPort: 9}]"), "spec.ingress[0].ports[0].endPort: needs a port"),
        (ONE_RULE.format("ports: [{port: 9, endPort: 8}]"), "spec.ingress[0].ports[0].endPort: 8 is less than port 9"),
        (ONE_RULE.format("ports: [{prot: TCP}]"), "spec.ingress[0].ports[0].prot: unknown field"),
    ],
)
def test_a_policy_with_an_error_isolates_what_it_selects_and_allows_nothing(spec: str, error: str) -> None:
    policy = policy_of("a/b", spec)
    assert policy.error.startswith(error)
    assert policy._replace(error="") == NetworkPolicy("a", "b", EVERYTHING, (), None)


def test_an_error_in_a_direction_closes_the_other_as_well() -> None:
    policy = policy_of("a/b", "{podSelector: {matchLabels: {app: web}}, ingress: [{}], egress: [{too: []}]}")
    assert policy._replace(error="") == NetworkPolicy("a", "b", WEB, (), ())
    assert policy.error == "spec.egress[0].too: unknown field"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ("[]", "spec: expected an object"),
        ("{podSelector: 1}", "spec.podSelector: expected an object"),
        ("{podSelector: {matchLabel: {}}}", "spec.podSelector.matchLabel: unknown field"),
        ("{policyTypes: Ingress}", "spec.policyTypes: expected a list"),
        ("{policyTypes: [1]}", "spec.policyTypes[0]: expected a text"),
        ("{policyTypes: [In, Out]}", "spec.policyTypes: neither Ingress nor Egress is among In, Out"),
    ],
)
def test_a_policy_whose_selector_or_types_cannot_be_read_is_an_error(spec: str, error: str) -> None:
    with pytest.raises(Invalid) as raised:
        policy_of("a/b", spec)
    assert str(raised.value).startswith(error)


def test_a_policy_in_no_namespace_is_in_the_default_one() -> None:
    policy = parse_policy({"metadata": {"name": "b"}, "spec": {"podSelector": {"matchLabels": {"app": "web"}}}})
    assert (policy.title, policy.subject) == ("default/b", PodPeer("default", WEB))


def test_a_port_range_has_all_ports_unless_it_names_some() -> None:
    ranges = [PortRange("TCP"), PortRange("TCP", 0, 65534), PortRange("TCP", 1), PortRange("TCP", name="a")]
    assert [port_range.is_any for port_range in ranges] == [True, False, False, False]
