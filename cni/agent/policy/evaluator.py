"""The evaluator: may this packet begin a connection, and why. It follows the API's documentation, and nothing compiled.

A connection needs egress of its source and ingress of its destination. A pod that a policy selects for a direction may
do in it what a rule of any such policy allows, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cni.agent.policy.objects import EGRESS, INGRESS, PROTOCOLS, IpBlock
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.policy.jsonobject import Labels
    from cni.agent.policy.objects import NetworkPolicy, Pod, PodPeer, PortRange, Rule
    from cni.protocol.address import IP

PEER, PROTOCOL, PORT = "peer", "protocol", "port"  # why a rule does not match


class State(Protocol):
    """The objects of a cluster, as far as they are known."""

    def pod_at(self, address: bytes) -> Pod | None:
        """Returns the pod that has an address and runs in a network of its own."""

    def namespace_labels(self, name: str) -> Labels | None:
        """Returns None if the namespace is not known: then no selector of namespaces selects it."""

    def policies_in(self, namespace: str) -> Iterable[NetworkPolicy]:
        """Returns the policies of a namespace."""

    def is_node_of(self, pod: Pod, address: bytes) -> bool:
        """True if it is an address of the node on which the pod runs."""


class Judgement(Record):
    """A direction of a connection, judged for the pod that it concerns.

    `isolating`: the policies that isolate the pod; `rule`: the one that allows, as `NAMESPACE/NAME ingress 0`;
    `misses`: pairs of a rule and why it does not match.
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
            return f"{judged}: allowed by {self.rule}"
        if self.allowed:
            return f"{judged}: not isolated"
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


def allowed(state: State, source: IP, destination: IP, protocol: str, port: int) -> Verdict:
    """Returns the verdict for a new connection. The protocol is TCP, UDP, SCTP or any other word."""
    if source == destination:
        return Verdict(True, "a pod reaches itself")
    packet = Packet(source, destination, protocol, port)
    judgements = []
    sender, receiver = state.pod_at(source.packed), state.pod_at(destination.packed)
    if sender is not None:
        judgements.append(_judge(state, packet, EGRESS, sender, destination))
    if receiver is not None:
        if state.is_node_of(receiver, source.packed):
            return Verdict(True, "from its own node everything reaches a pod")
        judgements.append(_judge(state, packet, INGRESS, receiver, source))
    if not judgements:
        return Verdict(True, "neither end is a pod that policies can select")
    denied = [judgement for judgement in judgements if not judgement.allowed]
    return Verdict(not denied, "; ".join([one.reason for one in denied or judgements]), tuple(judgements))


def _judge(state: State, packet: Packet, direction: str, pod: Pod, peer: IP) -> Judgement:
    """Returns what the policies of the pod's namespace say; `peer` is the other end."""
    title = f"{pod.namespace}/{pod.name}"
    labels = dict(pod.labels)
    isolating = [
        policy
        for policy in state.policies_in(pod.namespace)
        if policy.rules(direction) is not None and policy.selector.matches(labels)
    ]
    titles = tuple([policy.title for policy in isolating])
    misses: list[tuple[str, str]] = []
    for policy in isolating:
        for position, rule in enumerate(policy.rules(direction) or ()):
            name = f"{policy.title} {direction.lower()} {position}"
            miss = _mismatch(state, rule, packet, peer)
            if not miss:
                return Judgement(True, direction, title, titles, name, tuple(misses))
            misses.append((name, miss))
    return Judgement(not isolating, direction, title, titles, "", tuple(misses))


def _mismatch(state: State, rule: Rule, packet: Packet, peer: IP) -> str:
    """Returns what of a rule does not match; empty if all does. No peers are everybody, no ports are every protocol."""
    if rule.peers and not any(_is_peer(state, one, peer) for one in rule.peers):
        return PEER
    if not rule.ports:
        return ""
    if packet.protocol not in PROTOCOLS or all(one.protocol != packet.protocol for one in rule.ports):
        return PROTOCOL
    return "" if any(_is_port(state, one, packet) for one in rule.ports) else PORT


def _is_peer(state: State, peer: PodPeer | IpBlock, address: IP) -> bool:
    if isinstance(peer, IpBlock):
        return peer.contains(address)
    pod = state.pod_at(address.packed)
    if pod is None or not peer.pods.matches(dict(pod.labels)):
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
    return pod is not None and (port.name, packet.protocol, packet.port) in [tuple(one) for one in pod.ports]
