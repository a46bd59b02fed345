"""The evaluator: may this packet begin a connection, and why. It follows the API's documentation, and nothing compiled.

A connection needs egress of its source and ingress of its destination. A pod that a NetworkPolicy selects for a
direction may do in it what a rule of any such policy allows, and nothing else. ClusterNetworkPolicies are asked before,
in the tier Admin, and for pods that no NetworkPolicy selects behind, in the tier Baseline: the first rule decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cni.agent.policy.clusterpolicy import ACCEPT, ADMIN, BASELINE, PASS
from cni.agent.policy.objects import EGRESS, INGRESS, PROTOCOLS, IpBlock, NodePeer
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.policy.clusterpolicy import ClusterPolicy
    from cni.agent.policy.jsonobject import Labels
    from cni.agent.policy.objects import NetworkPolicy, Peer, Pod, PodPeer, PortRange, Rule
    from cni.protocol.address import IP

PEER, PROTOCOL, PORT = "peer", "protocol", "port"  # why a rule does not match
CLUSTERED = "ClusterNetworkPolicy "  # begins the names of rules of these
PASSES = "passes"  # it matches, and leaves the decision to the next tier


class State(Protocol):
    """The objects of a cluster, as far as they are known."""

    def pod_at(self, address: bytes) -> Pod | None:
        """Returns the pod that has an address and runs in a network of its own."""

    def namespace_labels(self, name: str) -> Labels | None:
        """Returns None if the namespace is not known: then no selector of namespaces selects it."""

    def policies_in(self, namespace: str) -> Iterable[NetworkPolicy]:
        """Returns the policies of a namespace."""

    def cluster_policies(self) -> Iterable[ClusterPolicy]:
        """Returns all ClusterNetworkPolicies."""

    def nodes_at(self, address: bytes) -> Iterable[Labels]:
        """Returns the labels of the nodes that have an address."""

    def is_node_of(self, pod: Pod, address: bytes) -> bool:
        """True if it is an address of the node on which the pod runs."""

    def is_open_node(self, pod: Pod, address: bytes) -> bool:
        """True if it is an address of the pod's node, and egress to the own node is not judged."""


class Judgement(Record):
    """A direction of a connection, judged for the pod that it concerns.

    `isolating`: the policies that isolate the pod; `rule`: the one that decides, as `NAMESPACE/NAME ingress 0`;
    `misses`: pairs of a rule before it and why that one does not decide.
    """

    allowed: bool
    direction: str
    pod: str
    isolating: tuple[str, ...] = ()
    rule: str = ""
    misses: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        judged = f"{self.direction.lower()} of {self.pod}"
        if self.rule:
            return f"{judged}: {'allowed' if self.allowed else 'denied'} by {self.rule}"
        if self.allowed:
            return f"{judged}: {'a pod reaches itself' if self.isolating else 'not isolated'}"
        whose, does = ("its", "matches") if len(self.isolating) == 1 else ("their", "match")
        rules = f"none of {whose} rules {does}" if self.misses else f"no rules in {whose} {self.direction.lower()}"
        return f"{judged}: isolated by {', '.join(self.isolating)}; {rules}"


class Verdict(Record):
    """The answer, and its reason in a sentence; `judgements` are in the order in which they are made."""

    allowed: bool
    reason: str
    judgements: tuple[Judgement, ...] = ()


class Packet(Record):
    """The first packet of a connection, as the destination gets it: after DNAT. `port` is 0 where there is none."""

    source: IP
    destination: IP
    protocol: str
    port: int


class Question(Record):
    """A question to the policies of a pod, about one direction of a packet; `peer` is the other end."""

    packet: Packet
    direction: str
    pod: Pod
    peer: IP


def allowed(state: State, source: IP, destination: IP, protocol: str, port: int) -> Verdict:
    """Returns the verdict for a new connection. The protocol is TCP, UDP, SCTP or any other word.

    A connection of a pod to itself is one through a service: any other does not leave the pod.
    """
    packet = Packet(source, destination, protocol, port)
    judgements = []
    sender, receiver = state.pod_at(source.packed), state.pod_at(destination.packed)
    if sender is not None and not state.is_open_node(sender, destination.packed):
        judgements.append(_judge(state, Question(packet, EGRESS, sender, destination)))
    if receiver is not None:
        if state.is_node_of(receiver, source.packed):
            return Verdict(True, "from its own node everything reaches a pod")
        judgements.append(_judge(state, Question(packet, INGRESS, receiver, source)))
    if not judgements:
        return Verdict(True, "neither end is a pod that policies can select")
    denied = [judgement for judgement in judgements if not judgement.allowed]
    return Verdict(not denied, "; ".join([judgement.reason for judgement in denied or judgements]), tuple(judgements))


def _judge(state: State, question: Question) -> Judgement:
    """Returns the answer of the first tier that has one."""
    misses: list[tuple[str, str]] = []
    answer = (
        _of_tier(state, question, ADMIN, misses)
        or _of_network_policies(state, question, misses)
        or _of_tier(state, question, BASELINE, misses)
        or Judgement(True, question.direction, _title(question.pod))
    )
    return answer._replace(misses=tuple(misses))


def _of_tier(state: State, question: Question, tier: str, misses: list[tuple[str, str]]) -> Judgement | None:
    """Returns what the policies of a tier say; None: nothing. Adds to the misses the rules that do not decide."""
    policies = [policy for policy in state.cluster_policies() if policy.tier == tier]
    for policy in sorted(policies, key=lambda policy: policy.rank):
        if not _selects(state, policy.subject, question.pod):
            continue
        for rule in policy.rules(question.direction):
            name = f"{CLUSTERED}{policy.name} {question.direction.lower()} {rule.number}"
            name += f" ({rule.name})" if rule.name else ""
            miss = _mismatch(state, rule.match, question) or (PASSES if rule.action == PASS else "")
            if not miss:
                return Judgement(rule.action == ACCEPT, question.direction, _title(question.pod), rule=name)
            misses.append((name, miss))
            if miss == PASSES:
                return None
    return None


def _of_network_policies(state: State, question: Question, misses: list[tuple[str, str]]) -> Judgement | None:
    """Returns what the policies of the pod's namespace say; None if none isolates the pod. Adds to the misses."""
    direction, labels = question.direction, dict(question.pod.labels)
    isolating = [
        policy
        for policy in state.policies_in(question.pod.namespace)
        if policy.rules(direction) is not None and policy.selector.matches(labels)
    ]
    if not isolating:
        return None
    judgement = Judgement(False, direction, _title(question.pod), tuple([policy.title for policy in isolating]))
    if question.packet.source == question.packet.destination:
        return judgement._replace(allowed=True)
    for policy in isolating:
        for position, rule in enumerate(policy.rules(direction) or ()):
            name = f"{policy.title} {direction.lower()} {position}"
            miss = _mismatch(state, rule, question)
            if not miss:
                return judgement._replace(allowed=True, rule=name)
            misses.append((name, miss))
    return judgement


def _title(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.name}"


def _mismatch(state: State, rule: Rule, question: Question) -> str:
    """Returns what of a rule does not match; empty if all does. No peers are everybody, no ports are every protocol."""
    packet = question.packet
    if rule.peers and not any(_is_peer(state, peer, question.peer) for peer in rule.peers):
        return PEER
    if not rule.ports:
        return ""
    if packet.protocol not in PROTOCOLS or all(port.protocol != packet.protocol for port in rule.ports):
        return PROTOCOL
    return "" if any(_is_port(state, port, packet) for port in rule.ports) else PORT


def _is_peer(state: State, peer: Peer, address: IP) -> bool:
    if isinstance(peer, IpBlock):
        return peer.contains(address)
    if isinstance(peer, NodePeer):
        return any(peer.nodes.matches(dict(labels)) for labels in state.nodes_at(address.packed))
    pod = state.pod_at(address.packed)
    return pod is not None and _selects(state, peer, pod)


def _selects(state: State, peer: PodPeer, pod: Pod) -> bool:
    if not peer.pods.matches(dict(pod.labels)):
        return False
    if isinstance(peer.namespaces, str):
        return peer.namespaces == pod.namespace
    labels = state.namespace_labels(pod.namespace)
    return labels is not None and peer.namespaces.matches(dict(labels))


def _is_port(state: State, port: PortRange, packet: Packet) -> bool:
    """True if the destination's port is meant; a name means the ports of that name that the destination's pod has."""
    if port.protocol != packet.protocol:
        return False
    if not port.name:
        return port.first <= packet.port <= port.last
    pod = state.pod_at(packet.destination.packed)
    return pod is not None and (port.name, packet.protocol, packet.port) in [tuple(named) for named in pod.ports]
