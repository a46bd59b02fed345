"""Tests which tables policies lead to, and how little changes in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.agent.policy.basetable import TableOptions, base_table, byways, empty_table
from cni.agent.policy.blocks import spans_of
from cni.agent.policy.compiler import BlockSet, PodSet, compile_policy, digest, policy_chain
from cni.agent.policy.desired import (
    AddChain,
    AddElements,
    AddSet,
    AddVerdicts,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    SetRules,
    difference,
)
from cni.agent.policy.index import UNKNOWN, Index
from cni.agent.policy.objects import IpBlock, Namespace, NetworkPolicy, Pod, PodPeer
from cni.agent.policy.selectors import EVERYTHING, IN, Requirement, Selector
from cni.agent.policy.tracker import Tracker
from cni.kernel.nft_ruleset import create
from cni.plan.nftrule import FILTER, Chain, Hook, Table, commands
from cni.plan.policy import map_name
from cni.protocol.address import parse_ip, parse_net
from tests.unit.policy_model import KernelTable, Packet
from tests.unit.policy_objects import namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from cni.agent.policy.desired import Change

WEB = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}"
FROM_APP = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: %s}}}]}]}"
A = PodPeer("x", Selector((Requirement("app", IN, ("a",)),)))
OPTIONS = TableOptions()
ONLY_IPV4 = TableOptions((4,))


class Node:
    """An index with a tracker of node n1."""

    def __init__(self, *objects: Pod | NetworkPolicy | Namespace, options: TableOptions = OPTIONS) -> None:
        self.index = Index("n1", [parse_ip("192.0.2.1").packed])
        self.tracker = Tracker(self.index, options)
        self.kernel = KernelTable(base_table(options))
        self.put(*objects)

    def put(self, *objects: Pod | NetworkPolicy | Namespace) -> list[Change]:
        for item in objects:
            if isinstance(item, Pod):
                self.index.put_pod(item)
            elif isinstance(item, Namespace):
                self.index.put_namespace(item)
            else:
                self.index.put_policy(item)
        return self.update()

    def update(self) -> list[Change]:
        changes = self.tracker.update()
        self.kernel.apply(changes)
        return changes

    def passes(self, source: str, destination: str, port: int = 80, hook: str = "forward") -> bool:
        return self.kernel.passes(hook, Packet(parse_ip(source), parse_ip(destination), "TCP", port))


def packed(text: str) -> bytes:
    return parse_ip(text).packed


def names(changes: list[Change], kind: type[Change]) -> list[str]:
    return [str(change[0]) for change in changes if isinstance(change, kind)]


def rules_of(spec: str, direction: str = "Ingress", families: tuple[int, ...] = (4,)) -> list[str]:
    """Returns the rules of the policy x/p, with names of sets without their hash."""
    compiled = compile_policy(policy_of("x/p", spec), direction, families)
    texts = [rule.text for rule in compiled.rules]
    for source in compiled.sets:
        kind = "cidr" if isinstance(source, BlockSet) else "pods" if isinstance(source, PodSet) else ""
        texts = [text.replace(source.name, f"{kind}_{source.family}") if kind else text for text in texts]
    return texts


ALLOW = 'counter accept comment "ingress 0"'


@pytest.mark.parametrize(
    ("rule", "texts"),
    [
        ("{}", [ALLOW]),
        ("{from: [{podSelector: {}}]}", [f"ip saddr @pods_4 {ALLOW}"]),
        ("{from: [{podSelector: {}}, {podSelector: {}}]}", [f"ip saddr @pods_4 {ALLOW}"]),
        ("{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}", [f"meta nfproto ipv4 {ALLOW}"]),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 0.0.0.0/0}}]}", [f"meta nfproto ipv4 {ALLOW}"]),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}", [f"ip saddr 10.0.0.0/8 {ALLOW}"]),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}", [f"ip saddr @cidr_4 {ALLOW}"]),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 11.0.0.0/9}}]}", [f"ip saddr @cidr_4 {ALLOW}"]),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/31, except: [10.0.0.0/32, 10.0.0.1/32]}}]}", []),
        ("{from: [{ipBlock: {cidr: 'fd00::/8'}}]}", []),
        ("{ports: [{port: 80}]}", [f"tcp dport 80 {ALLOW}"]),
        ("{ports: [{port: 80}, {port: 81}, {port: 79, endPort: 80}]}", [f"tcp dport 79-81 {ALLOW}"]),
        ("{ports: [{port: 80}, {port: 90, endPort: 99}]}", [f"tcp dport {{ 80, 90-99 }} {ALLOW}"]),
        ("{ports: [{port: 80}, {port: 80, protocol: UDP}]}", [f"tcp dport 80 {ALLOW}", f"udp dport 80 {ALLOW}"]),
        ("{ports: [{port: 80}, {port: http}, {}]}", [f"meta l4proto tcp {ALLOW}"]),
        ("{ports: [{protocol: SCTP}]}", [f"meta l4proto sctp {ALLOW}"]),
        ("{ports: [{protocol: ICMP}]}", []),
        ("{ports: [{port: http}]}", [f"ip daddr . tcp dport @named/tcp/http_4 {ALLOW}"]),
        (
            "{from: [{podSelector: {}}], ports: [{port: http, protocol: UDP}, {port: 1}]}",
            [
                f"ip saddr @pods_4 tcp dport 1 {ALLOW}",
                f"ip saddr @pods_4 ip daddr . udp dport @named/udp/http_4 {ALLOW}",
            ],
        ),
    ],
)
def test_a_rule_is_compiled_to_what_it_needs(rule: str, texts: list[str]) -> None:
    assert rules_of(f"{{ingress: [{rule}]}}") == texts


def test_egress_goes_on_to_the_destination_and_both_families_have_their_rules() -> None:
    spec = "{policyTypes: [Egress], egress: [{ports: [{port: 53}]}, {to: [{podSelector: {}}], ports: [{port: dns}]}]}"
    assert rules_of(spec, "Egress", (4, 6)) == [
        'tcp dport 53 counter goto to-pod comment "egress 0"',
        'ip daddr @pods_4 ip daddr . tcp dport @named/tcp/dns_4 counter goto to-pod comment "egress 1"',
        'ip6 daddr @pods_6 ip6 daddr . tcp dport @named/tcp/dns_6 counter goto to-pod comment "egress 1"',
    ]


def test_excepts_are_cut_out_of_blocks() -> None:
    def spans(*blocks: tuple[str, list[str]]) -> list[str]:
        intervals = spans_of([IpBlock(parse_net(net), tuple(map(parse_net, parts))) for net, parts in blocks])
        return [f"{first.hex()}-{last.hex()}" for first, last in intervals]

    assert spans(("10.0.0.0/24", ["10.0.0.0/25"])) == ["0a000080-0a0000ff"]
    assert spans(("10.0.0.0/24", ["10.0.0.128/25"])) == ["0a000000-0a00007f"]
    assert spans(("10.0.0.0/24", ["10.0.0.64/26", "10.0.0.64/27"])) == ["0a000000-0a00003f", "0a000080-0a0000ff"]
    assert spans(("10.0.0.0/24", ["10.0.0.64/26"]), ("10.0.0.64/26", [])) == ["0a000000-0a0000ff"]
    assert spans(("fd00::/127", [])) == [f"fd{'0' * 30}-fd{'0' * 29}1"]


def test_names_are_short_enough_for_the_kernel_and_differ() -> None:
    long = [f"{'n' * 63}/{'p' * 252}{end}" for end in "ab"]
    chains = {policy_chain(title, direction) for title in long for direction in ("Ingress", "Egress")}
    assert len(chains) == 4
    assert max(map(len, chains)) < 256
    assert policy_chain("x/p", "Egress") == "policy/x/p/out"
    assert digest(A) != digest(A._replace(namespaces="y"))
    assert len(digest(A)) == 32  # nobody can find two that are equal


def test_a_table_without_policies_asks_and_logs_nothing_that_it_cannot() -> None:
    least = "\n".join(commands(base_table(TableOptions((4,), log=False, revoke=False))))
    assert not any(word in least for word in ("ip6", "log", "label", "reject"))
    most = "\n".join(commands(base_table(TableOptions(reject=True))))
    assert "reject with icmpx admin-prohibited" in most
    assert 'log prefix "denied-in" group 77' in most
    assert most.count("reject") == 2, "pending pods get no answers"
    assert [rule.text for rule in byways(TableOptions((4,), multicast=True))] == []
    assert [rule.text for rule in byways(OPTIONS)] == [
        "ip6 saddr fe80::/10 drop",
        "meta pkttype { broadcast, multicast } drop",
    ]


def test_a_node_that_is_open_to_its_pods_judges_nothing_that_it_takes_in() -> None:
    assert {chain.hook.hook for chain in base_table(TableOptions(opens_node=True)).chains if chain.hook} == {"forward"}


def test_what_ipvs_sends_is_judged_at_the_output_behind_what_the_node_sends() -> None:
    chains = {chain.name: chain for chain in base_table(TableOptions(ipvs=True)).chains}
    output, forward = [rule.text for rule in chains["output"].rules], [rule.text for rule in chains["forward"].rules]
    assert output == ["fib saddr type local accept", *forward]
    assert [chains[name].hook for name in ("input", "output")] == [
        Hook("filter", "input", 110),  # IPVS is at 98 and 99
        Hook("filter", "output", FILTER),
    ]
    assert {chain.hook.hook for chain in base_table(OPTIONS).chains if chain.hook} == {"forward", "input"}


def test_policies_without_pods_on_this_node_cost_nothing() -> None:
    node = Node()
    assert node.put(pod_of("x/web", "10.1.2.1", node="n2"), policy_of("x/p", WEB), policy_of("x/q", "{}")) == []
    assert vars(node.tracker.table) == vars(empty_table(OPTIONS))


def test_the_first_isolated_pod_brings_its_chains_and_the_last_takes_them_away() -> None:
    node = Node(policy_of("x/p", FROM_APP % "a"))
    changes = node.put(pod_of("x/web", "10.1.1.1"))
    kinds = [type(change).__name__ for change in changes]
    assert kinds == [
        *["AddSet"] * 2,
        "AddElements",
        *["AddChain"] * 2,
        *["SetRules"] * 3,
        "AddVerdicts",
    ]
    assert names(changes, AddElements) == ["own4"]
    assert node.tracker.table.chains["byways"] == byways(OPTIONS)
    assert not node.passes("10.1.1.9", "10.1.1.1")
    node.index.remove_pod("x", "web")
    changes = node.update()
    assert [kind.__name__ for kind in (DeleteChain, DeleteSet) for _ in names(changes, kind)] == [
        *["DeleteChain"] * 2,
        *["DeleteSet"] * 2,
    ]
    assert vars(node.tracker.table) == vars(empty_table(OPTIONS))
    assert node.passes("10.1.1.9", "10.1.1.1")


def test_a_pod_elsewhere_is_one_element_of_each_set_that_selects_it() -> None:
    node = Node(policy_of("x/p", FROM_APP % "a"), policy_of("x/q", FROM_APP % "a"), pod_of("x/web", "10.1.1.1"))
    name = PodSet(A, 4).name
    far = pod_of("x/far", "10.1.2.1", node="n2", labels={"app": "a"})
    assert node.put(far) == [AddElements(name, (packed("10.1.2.1"),))]
    assert node.passes("10.1.2.1", "10.1.1.1")
    assert node.put(far) == []
    assert node.put(far._replace(labels=(("app", "b"),))) == [DeleteElements(name, (packed("10.1.2.1"),))]


def test_a_changed_rule_is_its_policys_chain_and_the_sets_that_it_needs() -> None:
    node = Node(policy_of("x/p", FROM_APP % "a"), pod_of("x/web", "10.1.1.1"), pod_of("x/b", "10.1.1.2"))
    assert names(node.put(policy_of("x/p", WEB)), SetRules) == ["policy/x/p/in"]
    assert node.tracker.table.sets == {}
    changes = node.put(policy_of("x/p", FROM_APP % "b"))
    assert len(names(changes, AddSet)) == 2
    assert names(changes, SetRules) == ["policy/x/p/in"]
    assert node.passes("10.1.1.2", "10.1.1.1")


def test_a_policy_that_selects_more_pods_gives_them_its_class() -> None:
    node = Node(policy_of("x/p", WEB), pod_of("x/web", "10.1.1.1"), pod_of("x/b", "10.1.1.2", "fd00::2"))
    changes = node.put(policy_of("x/p", "{podSelector: {}, policyTypes: [Ingress]}"))
    assert sorted(names(changes, AddVerdicts)) == ["ingress4", "ingress6"]
    assert names(changes, AddChain) == []
    assert len(set(node.tracker.table.verdicts["ingress4"].values())) == 1


def test_pods_with_the_same_policies_share_a_class_and_a_second_policy_makes_another() -> None:
    node = Node(policy_of("x/p", WEB), *[pod_of(f"x/{n}", f"10.1.1.{n}", labels={"app": "web"}) for n in range(1, 4)])
    assert len(set(node.tracker.table.verdicts["ingress4"].values())) == 1
    changes = node.put(policy_of("x/q", WEB))
    assert len(names(changes, AddChain)) == 2
    assert len(names(changes, DeleteChain)) == 1
    assert [type(change) for change in changes].index(DeleteElements) < [type(change) for change in changes].index(
        AddVerdicts
    )


def test_a_named_port_follows_the_pods_that_have_it() -> None:
    spec = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"
    node = Node(policy_of("x/p", spec), pod_of("x/web", "10.1.1.1"), pod_of("y/a", "10.1.2.1", ports={"http": 8080}))
    assert node.passes("10.1.1.1", "10.1.2.1", 8080)
    node.put(pod_of("y/a", "10.1.2.1", ports={"http": 8081}), pod_of("y/b", "fd00::1", ports={"http": 1}))
    assert [node.passes("10.1.1.1", "10.1.2.1", port) for port in (8080, 8081)] == [False, True]
    node.index.remove_policy("x", "p")
    assert len(names(node.update(), DeleteSet)) == 2


def test_a_namespace_that_gets_a_label_is_elements_alone() -> None:
    spec = "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]}"
    node = Node(policy_of("x/p", spec), pod_of("x/web", "10.1.1.1"), pod_of("y/a", "10.1.2.1", "fd00::1"))
    assert not node.passes("10.1.2.1", "10.1.1.1")
    changes = node.put(namespace_of("y", team="a"))
    assert [type(change) for change in changes] == [AddElements, AddElements]
    assert node.passes("10.1.2.1", "10.1.1.1")


def test_an_attached_pod_is_closed_until_it_is_known() -> None:
    node = Node()
    node.index.attach("x", "web", (packed("10.1.1.1"), packed("fd00::1")))
    node.update()
    assert node.tracker.table.verdicts["egress6"] == {packed("fd00::1"): "pending-out"}
    assert node.tracker.table.verdicts["ingress4"] == {packed("10.1.1.1"): "pending-in"}
    assert not node.passes("10.1.1.1", "203.0.113.7")
    assert not node.passes("203.0.113.7", "10.1.1.1")
    node.put(pod_of("x/web"))
    assert node.passes("203.0.113.7", "10.1.1.1")
    assert vars(node.tracker.table) == vars(empty_table(OPTIONS))
    assert UNKNOWN.pods == set(), "pods of which the API has told are kept nowhere else"


def test_a_pod_that_is_not_known_may_be_open_and_meets_policies_of_others_all_the_same() -> None:
    closed = policy_of("x/p", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}")
    node = Node(closed, pod_of("x/db", "10.1.1.2"), options=TableOptions(open=True))
    node.index.attach("x", "web", (packed("10.1.1.1"),))
    node.update()
    assert node.passes("10.1.1.1", "203.0.113.7")
    assert node.passes("203.0.113.7", "10.1.1.1")
    assert node.passes("10.1.1.1", "192.0.2.1", hook="input")
    assert not node.passes("10.1.1.1", "10.1.1.2")


def add_as_the_plugin(node: Node, address: str) -> None:
    """Leads an address to the pending chains, whatever its class was, as ADD does."""
    for suffix in ("in", "out"):
        name = map_name(suffix, 4)
        node.kernel.maps[name][packed(address)] = f"pending-{suffix}"
        node.tracker.verdicts.meet(name, packed(address), f"pending-{suffix}")


def test_an_address_that_the_plugin_has_closed_gets_its_class() -> None:
    closed = policy_of("x/p", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}")
    node = Node(closed, pod_of("x/db", "10.1.1.2"))
    add_as_the_plugin(node, "10.1.1.2")  # of a pod that was never deleted
    assert not node.passes("10.1.1.2", "203.0.113.7")
    node.put(pod_of("x/web"))
    node.index.attach("x", "web", (packed("10.1.1.2"),))
    node.update()
    assert node.passes("203.0.113.7", "10.1.1.2")
    assert not [name for name in node.kernel.chains if name.startswith("class/")]

    add_as_the_plugin(node, "10.1.1.2")  # another network of the pod, or the same ADD once more
    node.update()
    assert node.passes("203.0.113.7", "10.1.1.2")


def test_an_element_that_is_gone_is_missed_only_while_it_is_needed() -> None:
    closed = policy_of("x/p", "{podSelector: {}, policyTypes: [Ingress]}")
    node = Node(closed, pod_of("x/db", "10.1.1.2"))
    for wanted in (True, False):
        if not wanted:
            node.index.remove_pod("x", "db")
        node.kernel.maps["ingress4"].pop(packed("10.1.1.2"))
        node.tracker.verdicts.meet("ingress4", packed("10.1.1.2"), None)
        node.update()
        assert node.passes("203.0.113.7", "10.1.1.2") != wanted
    assert vars(node.tracker.table) == vars(empty_table(OPTIONS))


def test_an_address_of_a_family_that_the_node_has_not_is_left_out() -> None:
    node = Node(policy_of("x/p", FROM_APP % "a"), pod_of("x/web", "10.1.1.1", "fd00::1"), options=ONLY_IPV4)
    node.put(pod_of("x/a", "10.1.2.1", "fd00::2", node="n2", ports={"http": 80}))
    assert node.tracker.table.elements == {
        PodSet(A, 4).name: {packed("10.1.2.1")},
        "own4": {packed("10.1.1.1") * 2},
    }


def test_a_pod_without_an_address_of_the_nodes_families_has_no_class() -> None:
    node = Node(policy_of("x/p", FROM_APP % "a"), options=ONLY_IPV4)
    assert node.put(pod_of("x/web", "fd00::1")) == []
    node.index.remove_pod("x", "web")
    node.update()
    assert vars(node.tracker.table) == vars(empty_table(ONLY_IPV4))


def test_known_connections_and_neighbour_discovery_pass_and_byways_do_not() -> None:
    node = Node(policy_of("x/p", "{podSelector: {}, policyTypes: [Ingress, Egress]}"), pod_of("x/web", "fd00::1"))
    source, web = parse_ip("fd00::9"), parse_ip("fd00::1")
    assert node.kernel.passes("forward", Packet(source, web, "TCP", 80, state="established"))
    assert node.kernel.passes("forward", Packet(source, web, "ICMPv6", 135))
    assert not node.kernel.passes("forward", Packet(source, web, "ICMPv6", 128))
    assert not node.kernel.passes("forward", Packet(parse_ip("fe80::9"), parse_ip("fe80::1"), "TCP", 80))
    assert not node.kernel.passes("forward", Packet(source, parse_ip("ff02::1"), "UDP", 80, kind="multicast"))
    assert not node.passes("fd00::1", "2001:db8::1", hook="input")


def test_the_difference_of_two_tables_makes_one_of_the_other() -> None:
    first = Node(policy_of("x/p", FROM_APP % "a"), pod_of("x/web", "10.1.1.1"), pod_of("x/a", "10.1.1.2"))
    second = Node(policy_of("x/q", FROM_APP % "b"), pod_of("x/web", "10.1.1.1", "fd00::1"), pod_of("x/b", "10.1.1.4"))
    changes = difference(first.tracker.table, second.tracker.table)
    first.kernel.apply(changes)
    assert vars(first.kernel) == vars(second.kernel)
    assert difference(second.tracker.table, second.tracker.table) == []


def test_a_peer_of_all_pods_is_everybody_with_an_address() -> None:
    spec = "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{namespaceSelector: {}}]}]}"
    node = Node(policy_of("x/p", spec), pod_of("x/web", "10.1.1.1"), namespace_of("x"))
    assert node.tracker.table.elements[PodSet(PodPeer(EVERYTHING, EVERYTHING), 4).name] == {packed("10.1.1.1")}


def test_a_policy_that_two_classes_have_stays_with_the_one_that_is_left() -> None:
    node = Node(policy_of("x/p", WEB), policy_of("x/q", "{}"), pod_of("x/web", "10.1.1.1"), pod_of("x/b", "10.1.1.2"))
    assert len([name for name in node.tracker.table.chains if name.startswith("class/")]) == 2
    node.index.remove_pod("x", "b")
    assert len(names(node.update(), DeleteChain)) == 1
    assert {"policy/x/p/in", "policy/x/q/in"} <= node.tracker.table.chains.keys()


def test_blocks_and_sets_that_two_policies_share_go_with_the_last() -> None:
    block = "{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25]}}"
    spec = f"{{ingress: [{{from: [{block}], ports: [{{port: http}}, {{port: 1}}]}}]}}"
    node = Node(policy_of("x/p", spec), policy_of("x/q", spec), pod_of("x/web", "10.1.1.1", ports={"http": 80}))
    assert sorted(node.tracker.table.sets)[1:] == ["named/tcp/http_4"]
    assert [node.passes(f"203.0.113.{host}", "10.1.1.1") for host in (1, 200)] == [False, True]
    node.index.remove_policy("x", "p")
    assert names(node.update(), DeleteSet) == []
    node.put(pod_of("x/c", "10.1.1.2", "fd00::1", ports={"http": 80}))
    assert "named/tcp/http_6" not in node.tracker.table.elements
    node.index.remove_policy("x", "q")
    assert len(names(node.update(), DeleteSet)) == 2
    assert vars(node.tracker.table) == vars(empty_table(OPTIONS))


def test_the_kernels_codec_knows_every_field_and_statement() -> None:
    block = "{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25]}}"
    ports = "[{port: 80}, {port: 90, endPort: 99}, {port: http, protocol: UDP}, {protocol: SCTP}]"
    rules = f"{{from: [{{podSelector: {{}}}}, {block}, {{ipBlock: {{cidr: '::/0'}}}}], ports: {ports}}}"
    spec = f"{{policyTypes: [Ingress, Egress], ingress: [{rules}], egress: [{rules.replace('from', 'to')}]}}"
    node = Node(policy_of("x/p", spec), pod_of("x/web", "10.1.1.1", "fd00::1"))
    base, table = base_table(TableOptions(reject=True)), node.tracker.table
    chains = [chain for chain in base.chains if chain.name not in table.chains]
    chains += [Chain(name, rules) for name, rules in table.chains.items()]
    steps = create(Table(base.family, base.name, (*base.sets, *table.sets.values()), tuple(chains)))
    assert {f"chain {base.title} {name}" for name in table.chains} <= {step.title for step in steps}
