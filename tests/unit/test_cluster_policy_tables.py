"""Tests which chains ClusterNetworkPolicies lead to, and how little changes in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.agent.policy.basetable import base_table, empty_table
from cni.agent.policy.classes import TierChain
from cni.agent.policy.compiler import NodeSet
from cni.agent.policy.desired import (
    AddChain,
    AddElements,
    AddVerdicts,
    DeleteChain,
    DeleteElements,
    SetRules,
    difference,
)
from cni.agent.policy.index import Index
from cni.agent.policy.objects import NodePeer
from cni.agent.policy.selectors import EVERYTHING
from cni.agent.policy.tracker import Tracker
from cni.protocol.address import parse_ip
from tests.unit.policy_model import KernelTable, Packet
from tests.unit.policy_objects import cluster_policy_of, namespace_of, node_of, pod_of, policy_of
from tests.unit.test_policy_tracker import ONLY_IPV4, OPTIONS, names

if TYPE_CHECKING:
    from cni.agent.policy.clusterpolicy import ClusterPolicy
    from cni.agent.policy.desired import Change

WEB = "subject: {pods: {podSelector: {matchLabels: {app: web}}}}"
CLOSED = policy_of("x/closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
PODS = [pod_of("x/web", "10.1.1.1", "fd00::1"), pod_of("x/db", "10.1.1.2"), pod_of("y/far", "10.1.2.1", node="n2")]


def ingress(action: str, tier: str = "Admin", priority: int = 10, name: str = "p") -> ClusterPolicy:
    """Returns a policy about all traffic of pods to those of the web."""
    rules = f"[{{action: {action}, from: [{{namespaces: {{}}}}]}}]"
    return cluster_policy_of(name, f"{{tier: {tier}, priority: {priority}, {WEB}, ingress: {rules}}}")


class Host:
    """An index with a tracker of node n1, and the table that its changes make."""

    def __init__(self, *policies: ClusterPolicy, ipv6: bool = False) -> None:
        self.options = OPTIONS if ipv6 else ONLY_IPV4
        self.index = Index("n1")
        self.tracker, self.kernel = Tracker(self.index, self.options), KernelTable(base_table(self.options))
        for name in "xy":
            self.index.put_namespace(namespace_of(name))
        for pod in PODS:
            self.index.put_pod(pod)
        for policy in policies:
            self.index.put_policy(policy)
        self.update()

    def update(self) -> list[Change]:
        changes = self.tracker.update()
        self.kernel.apply(changes)
        return changes

    def passes(self, source: str, destination: str, port: int = 80, hook: str = "forward") -> bool:
        return self.kernel.passes(hook, Packet(parse_ip(source), parse_ip(destination), "TCP", port))

    @property
    def is_empty(self) -> bool:
        return vars(self.tracker.table) == vars(empty_table(self.options))


def rules_of(host: Host, chain: str) -> list[str]:
    return [rule.text for name, rules in host.tracker.table.chains.items() if name.startswith(chain) for rule in rules]


def test_a_policy_is_rules_of_its_tier_before_and_behind_those_of_network_policies() -> None:
    host = Host(ingress("Deny"), ingress("Pass", name="base", tier="Baseline"))
    (admin,), (base,) = rules_of(host, "admin/in/"), rules_of(host, "baseline/in/")
    assert admin.startswith("ip saddr @pods/")
    assert admin.endswith('counter goto denied-in comment "p ingress 0"')
    assert base.endswith('counter return comment "base ingress 0"')
    jumps = [rule.split("/")[0] for rule in rules_of(host, "class/in/")]
    assert jumps == ["jump admin", "jump baseline", "accept"]
    host.index.put_policy(CLOSED)
    host.update()
    jumps = [rule.split("/")[0] for rule in rules_of(host, "class/in/")]
    assert sorted(jumps) == ["goto isolated-in", "goto isolated-in", "jump admin", "jump policy", "jump policy"]
    assert rules_of(host, "baseline/") == [], "NetworkPolicy decides for the pods that it selects"


def test_egress_that_is_accepted_goes_on_to_the_destination_and_denied_is_counted_apart() -> None:
    rules = "[{action: Accept, to: [{networks: [192.0.2.0/24]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]"
    host = Host(cluster_policy_of("p", f"{{{WEB}, egress: {rules}}}"))
    assert rules_of(host, "admin/out/") == [
        'ip daddr 192.0.2.0/24 counter goto to-pod comment "p egress 0"',
        'meta nfproto ipv4 counter goto denied-out comment "p egress 1"',
    ]
    assert host.passes("10.1.1.1", "192.0.2.9")
    assert not host.passes("10.1.1.1", "10.1.1.2")
    assert not host.passes("10.1.1.1", "198.51.100.1", hook="input")


def test_pods_that_no_policy_selects_lead_nowhere_and_the_last_one_takes_the_chains_along() -> None:
    host = Host(ingress("Deny"), ipv6=True)
    assert host.tracker.table.verdicts["egress4"] == {}
    assert [key.hex() for key in host.tracker.table.verdicts["ingress4"]] == ["0a010101"]
    host.index.remove_pod("x", "web")
    host.update()
    assert host.is_empty


def test_pods_with_the_same_list_share_a_chain_and_another_order_is_another_list() -> None:
    host = Host(ingress("Deny", name="a"), ingress("Accept", name="b", priority=20))
    assert [rule.rpartition('"')[0].rpartition('"')[2] for rule in rules_of(host, "admin/in/")] == [
        "a ingress 0",
        "b ingress 0",
    ]
    host.index.put_pod(pod_of("x/other", "10.1.1.9", labels={"app": "web"}))
    assert names(host.update(), AddChain) == []
    host.index.put_policy(ingress("Accept", name="b", priority=5))
    changes = host.update()
    assert len(names(changes, AddChain)) == len(names(changes, DeleteChain)) == 2
    assert names(changes, AddVerdicts) == ["ingress4"]
    assert host.passes("10.1.2.1", "10.1.1.1")


def test_a_changed_rule_is_the_chain_of_its_list() -> None:
    host = Host(ingress("Deny"))
    host.index.put_policy(ingress("Pass"))
    changes = host.update()
    assert names(changes, SetRules) == [TierChain("Admin", ("p",), "Ingress").name]
    assert len(changes) == 1


@pytest.mark.parametrize("tier", ["Admin", "Baseline"])
def test_a_policy_that_goes_leaves_nothing(tier: str) -> None:
    host = Host(ingress("Deny", tier))
    assert not host.passes("10.1.2.1", "10.1.1.1")
    host.index.remove_policy("", "p")
    host.update()
    assert host.passes("10.1.2.1", "10.1.1.1")
    assert host.is_empty
    assert host.index.policy("p") is None


def test_a_namespace_that_gets_a_label_brings_its_pods_under_a_policy() -> None:
    spec = (
        "{subject: {namespaces: {matchLabels: {guarded: 'yes'}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"
    )
    host = Host(cluster_policy_of("p", spec))
    assert host.passes("10.1.2.1", "10.1.1.1")
    host.index.put_namespace(namespace_of("x", guarded="yes"))
    host.update()
    assert not host.passes("10.1.2.1", "10.1.1.1")


def test_a_pod_reaches_itself_by_a_service_under_network_policies_and_not_where_a_tier_denies_it() -> None:
    host = Host()
    host.index.put_policy(CLOSED)
    host.update()
    assert host.passes("10.1.1.1", "10.1.1.1")
    assert not host.passes("10.1.1.1", "10.1.1.2")
    host.index.put_policy(ingress("Deny", "Baseline"))
    host.update()
    assert host.passes("10.1.1.1", "10.1.1.1"), "Baseline is not asked for isolated pods"
    host.index.put_policy(ingress("Deny"))
    host.update()
    assert not host.passes("10.1.1.1", "10.1.1.1")
    assert host.passes("10.1.1.2", "10.1.1.2")


def test_nodes_are_a_set_that_follows_them() -> None:
    host = Host(cluster_policy_of("p", f"{{{WEB}, egress: [{{action: Deny, to: [{{nodes: {{}}}}]}}]}}"), ipv6=True)
    assert not host.tracker.asks_for_pods
    assert host.tracker.asks_for_nodes
    name = NodeSet(NodePeer(EVERYTHING), 4).name
    host.index.put_node(node_of("n1", "192.0.2.1", "fd00::1"))
    assert sorted(names(host.update(), AddElements)) == [name, name.replace("_4", "_6")]
    assert not host.passes("10.1.1.1", "192.0.2.1", hook="input")
    host.index.remove_node("n1")
    assert len(names(host.update(), DeleteElements)) == 2
    host.index.put_node(node_of("n1", "192.0.2.1"))
    host.index.remove_policy("", "p")
    host.update()
    assert host.is_empty
    assert not host.tracker.asks_for_nodes


def test_a_set_of_nodes_begins_with_those_that_are_known_and_two_chains_share_it() -> None:
    host = Host()
    host.index.put_node(node_of("n1", "192.0.2.1"))
    deny = "egress: [{action: Deny, to: [{nodes: {}}]}]"
    host.index.put_policy(cluster_policy_of("p", f"{{{WEB}, {deny}}}"))
    host.index.put_policy(cluster_policy_of("q", f"{{{deny}}}"))
    host.update()
    assert [*host.tracker.table.elements[NodeSet(NodePeer(EVERYTHING), 4).name]] == [parse_ip("192.0.2.1").packed]
    assert not host.passes("10.1.1.1", "192.0.2.1")
    host.index.remove_policy("", "q")
    host.update()
    assert not host.passes("10.1.1.1", "192.0.2.1")
    assert host.passes("10.1.1.2", "192.0.2.1")


def test_the_difference_of_two_tables_makes_one_of_the_other() -> None:
    first, second = Host(ingress("Deny")), Host(ingress("Pass", "Baseline"), ingress("Accept", name="q"))
    first.kernel.apply(difference(first.tracker.table, second.tracker.table))
    assert vars(first.kernel) == vars(second.kernel)
