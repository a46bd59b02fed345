"""The log of packets that policies deny: a line for each that the kernel has logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.controllers.base import Listener
from cni.agent.logs import log
from cni.agent.policy.denials import PacketDenied, denial_text

if TYPE_CHECKING:
    from cni.agent.controllers.base import AgentEvent
    from cni.agent.policy.index import Index

denials = log.getChild("denials")  # its events are none of the agent's: they end no error


class Denials(Listener):
    """Writes the lines."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def handle(self, event: AgentEvent) -> None:
        """Writes a line for a packet that a chain of the table has denied."""
        if isinstance(event, PacketDenied):
            text = denial_text(self._index, event)
            if text:
                denials.info("denied %s", text)
