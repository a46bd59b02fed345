"""Judge of connections that are established: the policies of now decide about them as about new ones.

Only what this node enforces counts: egress of its own pods, and ingress to them. A pod of another node is a peer here,
its own policies are that node's affair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.evaluator import allowed
from cni.agent.policy.index import UNKNOWN
from cni.agent.policy.objects import EGRESS, SCTP, TCP, UDP
from cni.protocol.address import IP

if TYPE_CHECKING:
    from cni.agent.policy.index import Index

PROTOCOL_NAMES = {6: TCP, 17: UDP, 132: SCTP}


class Judge:
    """Answers for the connections of a moment, while nothing changes in the index. Each question is asked once."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._answers: dict[tuple[bytes, bytes, int, int], bool | None] = {}

    def allows(self, source: bytes, destination: bytes, protocol: int, port: int) -> bool | None:
        """Returns None where this node does not judge: a connection without a pod of its own, or with one that the API
        has not told of.
        """
        question = source, destination, protocol, port
        if question not in self._answers:
            self._answers[question] = self._judge(*question)
        return self._answers[question]

    def _judge(self, source: bytes, destination: bytes, protocol: int, port: int) -> bool | None:
        local = [self._index.local_group(address) for address in (source, destination)]
        if local == [None, None] or UNKNOWN in local:
            return None
        sender, receiver = IP.from_packed(source), IP.from_packed(destination)
        if source in self._index.node_addresses or sender.is_loopback:
            return True
        verdict = allowed(self._index, sender, receiver, PROTOCOL_NAMES.get(protocol, str(protocol)), port)
        denied = [judgement.direction for judgement in verdict.judgements if not judgement.allowed]
        return not any(local[0 if direction == EGRESS else 1] is not None for direction in denied)
