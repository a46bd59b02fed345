"""Lines for a log of packets that were denied: both ends by name, and the policies that isolate the pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.basetable import PENDING
from cni.agent.policy.classes import denial_chain
from cni.agent.policy.evaluator import allowed
from cni.agent.policy.explain import end_of
from cni.agent.policy.objects import EGRESS, INGRESS
from cni.plan.policy import IN, OUT
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.agent.policy.index import Index
    from cni.protocol.address import IP

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
DIRECTIONS = {IN: INGRESS, OUT: EGRESS}
DENIED = {suffix: denial_chain(direction) for suffix, direction in DIRECTIONS.items()}
POLICIES_SHOWN = 8


class PacketDenied(Record):
    """A packet that the table of policies has logged: the chain that denied it, its ends, and what it was for."""

    chain: str
    source: IP
    destination: IP
    protocol: int
    port: int


def denial_text(index: Index, packet: PacketDenied) -> str:
    """Returns a line without its first word; empty if no chain of the table has logged the packet."""
    for suffix, direction in DIRECTIONS.items():
        if packet.chain in (DENIED[suffix], PENDING[suffix]):
            ends = f"src={_end(index, packet.source)} dst={_end(index, packet.destination)}"
            cause = _cause(index, packet, direction) if packet.chain == DENIED[suffix] else "pending"
            return f"{direction.lower()} {ends} {_traffic(packet)} {cause}"
    return ""


def _end(index: Index, address: IP) -> str:
    end = end_of(index, address)
    return f"{end.pod}({address.text})" if end.pod else address.text


def _traffic(packet: PacketDenied) -> str:
    protocol = PROTOCOLS.get(packet.protocol, f"protocol-{packet.protocol}")
    return f"{protocol}/{packet.port}" if packet.port else protocol


def _cause(index: Index, packet: PacketDenied, direction: str) -> str:
    """Returns what denies it now, which may be other policies than at the moment of the packet: a ClusterNetworkPolicy,
    or those that isolate the pod.
    """
    protocol = PROTOCOLS.get(packet.protocol, "").upper()
    verdict = allowed(index, packet.source, packet.destination, protocol, packet.port)
    judgement = next((judgement for judgement in verdict.judgements if judgement.direction == direction), None)
    if judgement is None or judgement.allowed:
        return "allowed-by-now"
    if judgement.rule:
        return f"denied-by={'/'.join(judgement.rule.split(' ')[:2])}"
    titles = judgement.isolating
    more = f",... ({len(titles)} in all)" if len(titles) > POLICIES_SHOWN else ""
    return f"isolated-by={','.join(titles[:POLICIES_SHOWN])}{more}"
