"""The loopback feature: the interface lo is up, whatever name the runtime says."""

from __future__ import annotations

from cni.spec.record import Record

LO = "lo"
NO_MAC = "00:00:00:00:00:00"


class LoopbackUp(Record):
    ifname: str

    def describe(self) -> str:
        return f"ip -n CONTAINER link set {self.ifname} up"
