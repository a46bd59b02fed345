"""The isolation feature (ingressPolicy of `firewall`): bridges that exchange nothing, and ports of one bridge."""

from __future__ import annotations

from cni.protocol.record import Record


class Isolation(Record):
    """Packets from `bridge` cannot enter another bridge that isolates, nor the reverse; with `within`, they cannot
    return to it either. Shared by the containers of the bridge, so DEL leaves it.
    """

    bridge: str
    within: bool

    def describe(self) -> str:
        within = f", isolated {{ {self.bridge} . {self.bridge} }}" if self.within else ""
        return f"nft add element inet podwire isolating {{ {self.bridge} }}{within}"


class IsolatedPort(Record):
    """A port of a bridge exchanges no frames with other isolated ones, which rules see only where br_netfilter shows
    them frames; it goes with the interface.
    """

    port: str

    def describe(self) -> str:
        return f"bridge link set dev {self.port} isolated on"
