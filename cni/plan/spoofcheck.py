"""The spoof check: frames of a container with another source MAC address than its own are dropped."""

from __future__ import annotations

from cni.plan.nfttext import ALLOWED, BRIDGE, GUARDED, RulesetFragment, chain_lines
from cni.protocol.address import mac_text
from cni.protocol.record import Record

CHAIN = "prerouting"


class SpoofGuard(Record):
    """Frames that arrive from the port with another source address than `mac` are dropped."""

    host_interface: str
    mac: bytes
    label: str

    def describe(self) -> str:
        key = f"{self.host_interface} . {mac_text(self.mac)}"
        return f"nft add element bridge podwire allowed {{ {key} }}"


def ruleset() -> RulesetFragment:
    """Returns the sets of guarded ports and of their allowed source addresses, and the rule that drops all others."""

    def lines() -> list[str]:
        dropping = f"iifname @{GUARDED} iifname . ether saddr != @{ALLOWED} drop"
        return [
            f"add set {BRIDGE} {GUARDED} {{ type ifname ; }}",
            f"add set {BRIDGE} {ALLOWED} {{ type ifname . ether_addr ; }}",
            *chain_lines(CHAIN, dropping, hook="filter hook prerouting priority dstnat", table=BRIDGE),
        ]

    return RulesetFragment(BRIDGE, (CHAIN,), lines)


def elements_text(port: str, mac: bytes, label: str) -> list[str]:
    return [
        f'add element {BRIDGE} {ALLOWED} {{ {port} . {mac_text(mac)} comment "{label}" }}',
        f'add element {BRIDGE} {GUARDED} {{ {port} comment "{label}" }}',
    ]
