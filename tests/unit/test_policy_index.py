"""Tests the index of pods, namespaces and policies against a reference that looks at everything each time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from cni.agent.policy.evaluator import allowed
from cni.agent.policy.index import UNKNOWN, Changes, Index
from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod, PodPeer
from cni.agent.policy.selectors import EVERYTHING, EXISTS, IN, NOT_IN, Requirement, Selector, selector_of
from cni.protocol.address import IP, parse_ip
from tests.unit.policy_objects import Objects, namespace_of, pod_of, policy_of
from tests.unit.strategies import seeds

if TYPE_CHECKING:
    from collections.abc import Callable

SELECTORS = [
    EVERYTHING,
    *[selector_of([Requirement("app", IN, values)]) for values in (("a",), ("b",), ("a", "b"))],
    selector_of([Requirement("app", NOT_IN, ("a",))]),
    selector_of([Requirement("tier", EXISTS, ())]),
    selector_of([Requirement("tier", IN, ("1",)), Requirement("app", IN, ("a",))]),
]
SCOPES: list[str | Selector] = [
    "x",
    "y",
    EVERYTHING,
    selector_of([Requirement("env", IN, ("p",))]),
    selector_of([Requirement("env", NOT_IN, ("p",))]),
]
PEERS = [PodPeer(scope, selector) for scope in SCOPES for selector in SELECTORS]
NAMES = [("TCP", "http"), ("UDP", "http")]
ADDRESSES = [parse_ip(text).packed for text in ("10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "fd00::1", "fd00::2")]
WEB = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]}"
POLICIES = [
    policy_of(f"{space}/{name}", spec)
    for space in "xyz"
    for name in "pq"
    for spec in ("{}", "{podSelector: {matchLabels: {app: a}}}", "{podSelector: {matchLabels: {app: b}}}")
]


def packed(text: str) -> bytes:
    return parse_ip(text).packed


def policies_of(index: Index, address: bytes) -> list[str]:
    group = index.local_group(address)
    return [policy.title for policy in group.policies] if group else []


def titles(index: Index, address: str) -> list[str]:
    return policies_of(index, packed(address))


def is_pending(index: Index, address: str) -> bool:
    return index.local_group(packed(address)) is UNKNOWN


def members(objects: Objects, peer: PodPeer) -> set[bytes]:
    pods = [(address, objects.pod_at(address)) for address in ADDRESSES]
    return {address for address, pod in pods if pod is not None and objects.selects(peer, pod)}


def named_ports(objects: Objects, name: tuple[str, str]) -> set[tuple[bytes, int]]:
    pods = [(address, objects.pod_at(address)) for address in ADDRESSES]
    return {
        (address, port.number)
        for address, pod in pods
        if pod is not None
        for port in pod.ports
        if (port.protocol, port.name) == name
    }


def local_policies(objects: Objects) -> dict[bytes, list[str]]:
    """Returns the titles of the policies that select the holder of each address, if it is on node n1."""
    return {
        address: sorted(
            policy.title
            for policy in objects.policies.values()
            if pod is not None and pod.node == "n1" and objects.selects(policy.subject, pod)
        )
        for address in ADDRESSES
        for pod in [objects.pod_at(address)]
    }


def any_pod(draw: random.Random, title: str) -> Pod:
    labels = {key: draw.choice(values) for key, values in (("app", "abc"), ("tier", "12")) if draw.random() < 0.7}
    addresses = [IP.from_packed(address).text for address in draw.sample(ADDRESSES, draw.randint(0, 2))]
    return pod_of(
        title,
        *addresses,
        node=draw.choice(["n1", "n2"]),
        labels=labels,
        ports=draw.choice([{}, {"http": 80}, {"http": "UDP/81"}]),
        phase=draw.choice(["Running"] * 6 + ["Failed"]),
        host=draw.random() < 0.1,
    )


def step(draw: random.Random, index: Index, objects: Objects) -> None:
    """Does one event to both."""
    name, pods_name = draw.choice("xyz"), draw.choice("pqrs")
    policy = draw.choice(POLICIES)
    pod = any_pod(draw, f"{name}/{pods_name}")
    labelled = namespace_of(name, **draw.choice([{}, {"env": "p"}, {"env": "q"}]))
    events: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (lambda: index.put_namespace(labelled), lambda: objects.namespaces.update({name: labelled})),
        (lambda: index.remove_namespace(name), lambda: objects.namespaces.pop(name, None)),
        *[(lambda: index.put_pod(pod), lambda: objects.put_pod(pod))] * 4,
        *[(lambda: index.remove_pod(name, pods_name), lambda: objects.remove_pod(f"{name}/{pods_name}"))] * 2,
        (lambda: index.put_policy(policy), lambda: objects.policies.update({policy.title: policy})),
        (
            lambda: index.remove_policy(policy.namespace, policy.name),
            lambda: objects.policies.pop(policy.title, None),
        ),
    ]
    for event in draw.choice(events):
        event()


@pytest.mark.parametrize("seed", seeds(40))
def test_what_has_changed_leads_from_each_state_to_the_next(seed: int) -> None:
    draw, index, objects = random.Random(seed), Index("n1"), Objects()
    sets: dict[PodPeer, set[bytes]] = {}
    named: dict[tuple[str, str], set[tuple[bytes, int]]] = {}
    for _ in range(60):
        before = local_policies(objects)
        for _ in range(draw.randint(1, 3)):
            step(draw, index, objects)
        changes = index.take()
        for peer, changed in changes.members.items():
            sets[peer] = sets[peer].union(changed) - {address for address, joins in changed.items() if not joins}
        for name, ends in changes.named.items():
            named[name] = named[name].union(ends) - {end for end, joins in ends.items() if not joins}
        assert sets == {peer: members(objects, peer) for peer in sets}
        assert named == {name: named_ports(objects, name) for name in named}
        after = local_policies(objects)
        assert {address: policies_of(index, address) for address in ADDRESSES} == after
        assert {address for address in ADDRESSES if before[address] != after[address]} <= changes.addresses
        peer, name = draw.choice(PEERS), draw.choice(NAMES)
        if peer not in sets:
            sets[peer] = set(index.use_set(peer))
        elif draw.random() < 0.5:
            index.release_set(peer)
            del sets[peer]
        if name not in named:
            named[name] = set(index.use_named(name))
        elif draw.random() < 0.5:
            index.release_named(name)
            del named[name]


def index_of(*objects: Namespace | Pod | NetworkPolicy) -> Index:
    index = Index("n1", [packed("192.0.2.1")])
    put: dict[type, Callable[..., None]] = {
        Namespace: index.put_namespace,
        Pod: index.put_pod,
        NetworkPolicy: index.put_policy,
    }
    for item in objects:
        put[type(item)](item)
    return index


def test_an_event_that_changes_nothing_is_no_change() -> None:
    pod, policy = pod_of("x/web", "10.1.0.1"), policy_of("x/p", WEB)
    index = index_of(pod, policy)
    assert index.take().addresses == {packed("10.1.0.1")}
    index.put_pod(pod)
    index.put_policy(policy)
    index.remove_pod("x", "other")
    index.remove_policy("y", "other")
    changes = index.take()
    assert not any(changes)


def test_the_policies_of_a_pod_on_another_node_are_not_asked() -> None:
    index = index_of(pod_of("x/web", "10.1.0.1", node="n2"), policy_of("x/p", WEB))
    assert titles(index, "10.1.0.1") == []
    assert index.policy("x/p") == policy_of("x/p", WEB)
    assert index.policy("x/q") is None


def test_a_policy_whose_rules_alone_change_leaves_the_pods_that_it_selects_alone() -> None:
    index = index_of(pod_of("x/web", "10.1.0.1"), policy_of("x/p", WEB))
    index.take()
    index.put_policy(policy_of("x/p", WEB.replace("]}", "], ingress: [{}]}")))
    assert index.take() == Changes({"x/p"}, set(), {}, {}, {})
    index.put_policy(policy_of("x/p", WEB.replace("Ingress", "Egress")))
    assert index.take() == Changes({"x/p"}, {packed("10.1.0.1")}, {}, {}, {})


def test_a_set_that_two_use_lives_until_both_have_released_it() -> None:
    index = index_of(pod_of("x/web", "10.1.0.1"))
    peer = PodPeer("x", EVERYTHING)
    assert index.use_set(peer) == index.use_set(peer) == [packed("10.1.0.1")]
    assert index.use_named(("TCP", "http")) == index.use_named(("TCP", "http")) == []
    index.release_set(peer)
    index.release_named(("TCP", "http"))
    index.put_pod(pod_of("x/b", "10.1.0.2", ports={"http": 80}))
    index.remove_pod("x", "web")
    changes = index.take()
    assert changes.members == {peer: {packed("10.1.0.2"): True, packed("10.1.0.1"): False}}
    assert changes.named == {("TCP", "http"): {(packed("10.1.0.2"), 80): True}}


def test_the_later_of_two_pods_has_an_address_until_it_is_gone() -> None:
    index = index_of(policy_of("x/p", WEB), pod_of("x/old", "10.1.0.1"), pod_of("x/web", "10.1.0.1"))
    index.put_pod(pod_of("x/old", "10.1.0.1", labels={"app": "old", "new": "label"}))
    assert titles(index, "10.1.0.1") == ["x/p"]
    index.remove_pod("x", "web")
    assert titles(index, "10.1.0.1") == []
    index.put_pod(pod_of("x/third", "10.1.0.1"))
    index.remove_pod("x", "old")
    pod = index.pod_at(packed("10.1.0.1"))
    assert pod is not None
    assert pod.name == "third"


def test_a_pod_that_is_attached_here_is_pending_until_the_api_tells_of_it() -> None:
    index = index_of(policy_of("x/p", WEB))
    index.attach("x", "web", (packed("10.1.0.1"),))
    assert index.take().addresses == {packed("10.1.0.1")}
    assert is_pending(index, "10.1.0.1")
    assert index.pod_at(packed("10.1.0.1")) is None
    index.put_pod(pod_of("x/web", node=""))
    assert not is_pending(index, "10.1.0.1")
    assert titles(index, "10.1.0.1") == ["x/p"]
    index.remove_pod("x", "web")
    assert is_pending(index, "10.1.0.1")
    index.detach("x", "web")
    assert not is_pending(index, "10.1.0.1")
    index.detach("x", "web")


def test_an_attached_pod_has_its_address_whatever_the_api_says_of_others() -> None:
    index = index_of(policy_of("x/p", WEB), pod_of("x/gone", "10.1.0.1"))
    index.attach("x", "web", (packed("10.1.0.1"),))
    index.put_pod(pod_of("x/web", "10.1.0.1"))
    index.put_pod(pod_of("x/late", "10.1.0.1"))
    index.put_pod(pod_of("x/gone", "10.1.0.1", labels={"app": "changed"}))
    assert titles(index, "10.1.0.1") == ["x/p"]


def test_attaching_a_known_pod_takes_the_address_over() -> None:
    index = index_of(policy_of("x/p", WEB), pod_of("x/web", "10.1.0.1"), pod_of("x/late", "10.1.0.1"))
    assert titles(index, "10.1.0.1") == []
    index.attach("x", "web", (packed("10.1.0.1"), packed("fd00::1")))
    assert [titles(index, text) for text in ("10.1.0.1", "fd00::1")] == [["x/p"], ["x/p"]]
    index.attach("x", "web", (packed("10.1.0.2"),))
    assert [titles(index, text) for text in ("10.1.0.1", "fd00::1", "10.1.0.2")] == [[], [], ["x/p"]]


def test_the_address_of_a_detached_pod_is_nobodys_though_the_api_still_tells_it() -> None:
    index = index_of(policy_of("x/p", WEB))
    index.attach("x", "web", (packed("10.1.0.1"),))
    index.put_pod(pod_of("x/web", "10.1.0.1", "fd00::1"))
    index.detach("x", "web")
    assert [titles(index, text) for text in ("10.1.0.1", "fd00::1")] == [[], ["x/p"]]


def test_a_finished_pod_that_is_attached_is_nobody() -> None:
    index = index_of(policy_of("x/p", WEB))
    index.attach("x", "web", (packed("10.1.0.1"),))
    index.put_pod(pod_of("x/web", "10.1.0.1", phase="Failed"))
    assert index.pod_at(packed("10.1.0.1")) is None
    assert not is_pending(index, "10.1.0.1")


def test_the_evaluator_judges_by_the_index() -> None:
    index = index_of(
        namespace_of("y", team="a"),
        pod_of("x/web", "10.1.0.1", ports={"http": 80}),
        pod_of("y/client", "10.1.0.2", node="n2"),
        policy_of("x/p", "{ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}], ports: [{port: http}]}]}"),
    )
    web, client, node = parse_ip("10.1.0.1"), parse_ip("10.1.0.2"), parse_ip("192.0.2.1")
    assert allowed(index, client, web, "TCP", 80).reason.endswith("allowed by x/p ingress 0")
    assert not allowed(index, client, web, "TCP", 81).allowed
    assert allowed(index, node, web, "TCP", 81).reason == "from its own node everything reaches a pod"
    assert index.namespace_labels("z") is None
    index.remove_namespace("y")
    assert not allowed(index, client, web, "TCP", 80).allowed


def test_a_group_forgets_queries_that_nobody_uses_any_more() -> None:
    index = index_of(pod_of("x/web", "10.1.0.1"))
    peer = PodPeer("x", EVERYTHING)
    index.use_set(peer)
    group = index.local_group(packed("10.1.0.1"))
    assert group is not None
    assert [query.peer for query in group.queries] == [peer]
    index.release_set(peer)
    assert group.queries == set()


def test_nothing_is_kept_of_what_is_gone() -> None:
    index = index_of(
        namespace_of("x"),
        pod_of("x/web", "10.1.0.1"),
        pod_of("x/web2", "10.1.0.1"),
        policy_of("x/p", WEB),
    )
    peer = PodPeer(EVERYTHING, SELECTORS[1])
    index.use_set(peer)
    index.remove_pod("x", "web")
    index.remove_pod("x", "web2")
    index.remove_policy("x", "p")
    index.remove_namespace("x")
    index.release_set(peer)
    groups = index._groups
    assert not any([index._pods, index._policies, index._attached, index._holders._holders, index._holders._contested])
    assert not any([groups._spaces, groups._queries, groups._filed, groups._scopes])
