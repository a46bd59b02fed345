"""Tests that packets pass the compiled tables exactly if the evaluator allows them, after every change."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.agent.policy.basetable import TableOptions, base_table, empty_table
from cni.agent.policy.clusterpolicy import ACTIONS, TIERS, ClusterPolicy, ClusterRule
from cni.agent.policy.desired import difference
from cni.agent.policy.evaluator import allowed
from cni.agent.policy.index import Index
from cni.agent.policy.nodes import Node
from cni.agent.policy.objects import (
    IpBlock,
    NamedPort,
    Namespace,
    NetworkPolicy,
    NodePeer,
    Pod,
    PodPeer,
    PortRange,
    Rule,
)
from cni.agent.policy.selectors import (
    DOES_NOT_EXIST,
    EVERYTHING,
    EXISTS,
    IN,
    NOT_IN,
    Requirement,
    Selector,
    selector_of,
)
from cni.agent.policy.tracker import Tracker
from cni.protocol.address import IP, PORT_LIMIT, parse_ip, parse_net
from tests.unit.policy_model import KernelTable, Packet
from tests.unit.policy_objects import NODES, Objects, namespace_of
from tests.unit.strategies import PROFILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    # A text is the title of a policy or pod that goes, or the name of a namespace, a node or a ClusterNetworkPolicy.
    Event = Namespace | Pod | NetworkPolicy | ClusterPolicy | Node | str

POOL = [parse_ip(text).packed for text in ("10.1.1.2", "10.1.1.3", "10.1.2.2", "fd00:1::2", "fd00:1::3")]
OTHERS = ["203.0.113.7", "192.0.2.1", "10.1.2.1", "2001:db8:7::1", "2001:db8::1"]  # outside, and nodes
ENDS = [IP.from_packed(address) for address in POOL] + [parse_ip(text) for text in OTHERS]
PAIRS = [
    (source, destination)
    for source, destination in product(ENDS, ENDS)
    if source.family == destination.family and not {source.text, destination.text} <= set(OTHERS)
]
EXAMPLES = 75  # of each test; together they ask about 108,000 connections
ASKED = [(protocol, port) for protocol in ("TCP", "UDP", "SCTP") for port in (79, 80, 81)] + [("ICMP", 0)]


class Host:
    """A node's index, tracker, and what the kernel has."""

    def __init__(self, name: str, options: TableOptions) -> None:
        self.options = options
        self.index = Index(name, [parse_ip(text).packed for text in NODES[name]])
        self.tracker = Tracker(self.index, options)
        self.kernel = KernelTable(base_table(options))

    def passes(self, packet: Packet) -> bool:
        """True if the node forwards or takes in the packet; what it sends to pods itself, nobody judges."""
        if packet.source.packed in self.index.node_addresses:
            return True
        to_node = packet.destination.packed in self.index.node_addresses
        return self.kernel.passes("input" if to_node else "forward", packet)


class Nodes:
    """Two nodes and the objects that both know."""

    def __init__(self, options: TableOptions) -> None:
        self.options = options
        self.objects = Objects()
        self.nodes = {name: Host(name, options) for name in NODES}

    def handle(self, event: Event) -> None:
        _put(self.objects, event)
        for node in self.nodes.values():
            _put_index(node.index, event)

    def update(self) -> None:
        for node in self.nodes.values():
            node.kernel.apply(node.tracker.update())

    def passes(self, packet: Packet) -> bool:
        """True if the packet passes the nodes of both its ends."""
        ends = [self.objects.pod_at(end.packed) for end in (packet.source, packet.destination)]
        return all(self.nodes[name].passes(packet) for name in sorted({pod.node for pod in ends if pod is not None}))


def _put(objects: Objects, event: Event) -> None:
    if isinstance(event, Namespace):
        objects.namespaces[event.name] = event
    elif isinstance(event, Pod):
        objects.put_pod(event)
    elif isinstance(event, NetworkPolicy | ClusterPolicy):
        objects.policies[event.title] = event
    elif isinstance(event, Node):
        objects.nodes[event.name] = event
    elif "/" not in event:
        objects.namespaces.pop(event, None)
        objects.nodes.pop(event, None)
        objects.policies.pop(event, None)
    else:
        objects.remove_pod(event)
        objects.policies.pop(event, None)


def _put_index(index: Index, event: Event) -> None:
    if isinstance(event, Namespace):
        index.put_namespace(event)
    elif isinstance(event, Pod):
        index.put_pod(event)
    elif isinstance(event, NetworkPolicy | ClusterPolicy):
        index.put_policy(event)
    elif isinstance(event, Node):
        index.put_node(event)
    elif "/" not in event:
        index.remove_namespace(event)
        index.remove_node(event)
        index.remove_policy("", event)
    else:
        index.remove_pod(*event.split("/"))
        index.remove_policy(*event.split("/"))


def judged(nodes: Nodes) -> list[str]:
    """Returns the connections that the tables and the evaluator judge differently."""
    lines = []
    pairs = [pair for pair in PAIRS if pair[0].family in nodes.options.families]
    for (source, destination), (protocol, port) in product(pairs, ASKED):
        verdict = allowed(nodes.objects, source, destination, protocol, port)
        if nodes.passes(Packet(source, destination, protocol, port)) != verdict.allowed:
            lines.append(f"{source.text} > {destination.text} {protocol}/{port}: {verdict.reason}")
    return lines


def check(nodes: Nodes) -> None:
    """Checks that the tables are those which the objects alone lead to."""
    for name, node in nodes.nodes.items():
        table = node.tracker.table
        start = KernelTable(base_table(nodes.options))
        start.apply(difference(empty_table(nodes.options), table))
        assert vars(start) == vars(node.kernel)
        fresh = Host(name, nodes.options)
        pods = sorted(nodes.objects.pods.values(), key=lambda pod: _rank(nodes.objects, pod))
        known = nodes.objects
        events: list[Event] = [*known.namespaces.values(), *pods, *known.policies.values(), *known.nodes.values()]
        for event in events:
            _put_index(fresh.index, event)
        changes = fresh.tracker.update()
        if not _is_contested(nodes.objects):
            assert vars(fresh.tracker.table) == vars(table)
            assert difference(table, fresh.tracker.table) == []
        fresh.kernel.apply([*changes, *difference(fresh.tracker.table, table)])
        assert vars(fresh.kernel) == vars(node.kernel)


def _rank(objects: Objects, pod: Pod) -> int:
    return max((n for n, claim in enumerate(objects._claims) if claim[1] == f"{pod.namespace}/{pod.name}"), default=0)


def _is_contested(objects: Objects) -> bool:
    claimed = [address for address, _title in objects._claims]
    return len(claimed) != len(set(claimed))


LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2).map(
    lambda labels: tuple(sorted(labels.items()))
)
REQUIREMENTS = st.builds(
    Requirement, st.sampled_from(["app", "tier"]), st.sampled_from([IN, NOT_IN]), st.sampled_from([("a",), ("a", "b")])
) | st.builds(Requirement, st.sampled_from(["app", "tier"]), st.sampled_from([EXISTS, DOES_NOT_EXIST]), st.just(()))
SELECTORS: st.SearchStrategy[Selector] = st.just(EVERYTHING) | st.lists(REQUIREMENTS, max_size=2).map(selector_of)
SPACES = st.sampled_from(["x", "y"])
CIDRS = {
    "0.0.0.0/0": ["10.1.0.0/16", "10.1.1.2/32"],
    "10.1.0.0/16": ["10.1.1.0/24", "10.1.1.3/32"],
    "10.1.1.2/31": ["10.1.1.2/32", "10.1.1.3/32"],
    "203.0.113.0/24": ["203.0.113.0/25"],
    "192.0.2.1/32": [],
    "::/0": ["fd00::/8"],
    "fd00:1::/64": ["fd00:1::2/127", "fd00:1::3/128"],
}
BLOCKS = st.sampled_from(sorted(CIDRS)).flatmap(
    lambda cidr: st.builds(
        IpBlock,
        st.just(parse_net(cidr)),
        st.lists(st.sampled_from(CIDRS[cidr] or [""]).map(parse_net), max_size=2 if CIDRS[cidr] else 0).map(
            lambda parts: tuple(sorted(set(parts)))
        ),
    )
)
POD_PEERS = st.builds(PodPeer, SPACES | SELECTORS, SELECTORS)
PROTOCOL = st.sampled_from(["TCP", "TCP", "UDP", "SCTP", "ICMP"])
# All fields are given: those that have defaults would be drawn from their types.
PORTS = st.builds(PortRange, PROTOCOL, st.just(0), st.just(PORT_LIMIT), st.sampled_from(["", "http", "web", "none"]))
PORTS |= st.builds(PortRange, PROTOCOL, st.just(80), st.sampled_from([80, 81]), st.just(""))
PORTS |= st.builds(PortRange, PROTOCOL, st.just(81), st.just(81), st.just(""))
RULES = st.builds(Rule, st.lists(POD_PEERS | BLOCKS, max_size=2).map(tuple), st.lists(PORTS, max_size=2).map(tuple))
RULE_LISTS = st.none() | st.lists(RULES, max_size=2).map(tuple)
POLICIES = st.builds(
    NetworkPolicy, SPACES, st.sampled_from(["p", "q", "r"]), SELECTORS, RULE_LISTS, RULE_LISTS, st.just("")
)
NAMED_PORTS = st.builds(
    NamedPort, st.sampled_from(["http", "web"]), st.sampled_from(["TCP", "UDP"]), st.sampled_from([80, 81])
)
PODS = st.builds(
    Pod,
    SPACES,
    st.sampled_from(["m", "n", "o"]),
    LABELS,
    st.lists(st.sampled_from(POOL), max_size=2, unique=True).map(tuple),
    st.lists(NAMED_PORTS, max_size=2, unique=True).map(tuple),
    st.sampled_from([False] * 7 + [True]),
    st.sampled_from([False] * 7 + [True]),
    st.sampled_from(sorted(NODES)),
)
NAMESPACES = st.builds(lambda name, labels: namespace_of(name, **dict(labels)), SPACES, LABELS)
NODE_ADDRESSES = [parse_ip(text).packed for text in OTHERS[1:3] + OTHERS[4:]]
CLUSTER_NODES = st.builds(
    Node,
    st.sampled_from(sorted(NODES)),
    LABELS,
    st.lists(st.sampled_from(NODE_ADDRESSES), max_size=2, unique=True).map(tuple),
)
EVERY_POD = PodPeer(EVERYTHING, EVERYTHING)
CLUSTER_PEERS = st.just(EVERY_POD) | st.builds(PodPeer, SELECTORS, SELECTORS) | BLOCKS | st.builds(NodePeer, SELECTORS)
CLUSTER_RULES = st.builds(
    ClusterRule,
    st.integers(0, 24),
    st.sampled_from(ACTIONS),
    st.builds(Rule, st.lists(CLUSTER_PEERS, max_size=2).map(tuple), st.lists(PORTS, max_size=1).map(tuple)),
    st.just(""),
)
CLUSTER_RULE_LISTS = st.lists(CLUSTER_RULES, max_size=3).map(tuple)
CLUSTER_POLICIES = st.builds(
    ClusterPolicy,
    st.sampled_from(["c", "d", "e"]),
    st.sampled_from(TIERS),
    st.sampled_from([0, 1]),
    st.just(EVERY_POD) | st.builds(PodPeer, SELECTORS, SELECTORS),
    CLUSTER_RULE_LISTS,
    CLUSTER_RULE_LISTS,
    st.just(""),
    st.just(""),
)
NAMES = st.sampled_from(["c", "d", "e", *NODES])
TITLES = st.builds("{}/{}".format, SPACES, st.sampled_from(["m", "n", "o", "p", "q", "r"]))
EVENTS: st.SearchStrategy[Any] = PODS | PODS | POLICIES | POLICIES | NAMESPACES | TITLES | SPACES
CLUSTER_EVENTS: st.SearchStrategy[Any] = EVENTS | CLUSTER_POLICIES | CLUSTER_POLICIES | CLUSTER_NODES | NAMES
STARTS = st.tuples(
    st.lists(NAMESPACES, max_size=2), st.lists(PODS, min_size=2, max_size=5), st.lists(POLICIES, min_size=1, max_size=4)
)


@pytest.mark.no_cover
@settings(PROFILE, max_examples=EXAMPLES)
@given(STARTS, st.lists(st.lists(EVENTS, min_size=1, max_size=3), max_size=3), st.sampled_from([(4,), (4, 6)]))
def test_packets_pass_exactly_if_the_evaluator_allows_them(
    start: tuple[list[Event], ...], batches: list[list[Event]], families: tuple[int, ...]
) -> None:
    run([[event for events in start for event in events], *batches], families)


@pytest.mark.no_cover
@settings(PROFILE, max_examples=EXAMPLES)
@given(
    STARTS,
    st.lists(CLUSTER_POLICIES | CLUSTER_NODES, min_size=1, max_size=6),
    st.lists(st.lists(CLUSTER_EVENTS, min_size=1, max_size=3), max_size=3),
)
def test_packets_pass_exactly_if_the_tiers_allow_them(
    start: tuple[list[Event], ...], clustered: list[Event], batches: list[list[Event]]
) -> None:
    known = [namespace_of(name) for name in "xy"]
    run([[*known, *[event for events in start for event in events], *clustered], *batches])


def run(batches: Sequence[Sequence[Event]], families: tuple[int, ...] = (4, 6)) -> None:
    nodes = Nodes(TableOptions(families))
    for batch in batches:
        for event in batch:
            nodes.handle(event)
        nodes.update()
        assert judged(nodes) == []
    check(nodes)
