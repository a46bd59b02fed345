"""The loopback feature: the interface lo is up, whatever name the runtime passes."""

from __future__ import annotations

from cni.protocol.record import Record

LO = "lo"
NO_MAC = "00:00:00:00:00:00"


class LoopbackUp(Record):
    """The loopback interface is up. `label`: the owner's; DEL keeps the interface of another container."""

    ifname: str
    label: str

    def describe(self) -> str:
        return f"ip -n CONTAINER link set {self.ifname} up"
