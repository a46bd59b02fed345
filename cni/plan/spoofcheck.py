"""The spoof check: frames of a container with another source MAC address than its own are dropped."""

from __future__ import annotations

from cni.protocol.address import mac_text
from cni.protocol.record import Record


class SpoofGuard(Record):
    """Frames that arrive from the port with another source address than `mac` are dropped."""

    host_interface: str
    mac: bytes
    label: str

    def describe(self) -> str:
        key = f"{self.host_interface} . {mac_text(self.mac)}"
        return f"nft add element bridge podwire allowed {{ {key} }}"
