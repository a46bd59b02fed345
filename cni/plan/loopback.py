"""The loopback feature: the interface lo is up, whatever name the runtime says."""

from __future__ import annotations

from cni.protocol.record import Record

LO = "lo"
NO_MAC = "00:00:00:00:00:00"


class LoopbackUp(Record):
    """`label`: the owner's; the interface of another container is left alone at DEL."""

    ifname: str
    label: str

    def describe(self) -> str:
        return f"ip -n CONTAINER link set {self.ifname} up"
