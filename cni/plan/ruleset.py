"""The static part of podwire's nftables as text for `nft -f`: loaded when missing, in one transaction.

Every text can be loaded again at any time: what exists stays, rules are flushed and written anew within the same
transaction, so that connection tracking is never without a NAT rule in between.
"""

from __future__ import annotations

from cni.plan.operations import masquerade_chain
from cni.spec.address import mac_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.spec.address import Net

TABLE = "podwire"
POSTROUTING = "postrouting"
GUARD_CHAIN = "prerouting"
ALLOWED, GUARDED = "allowed", "guarded"
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
IP = {4: "ip", 6: "ip6"}


def masquerade_map(family: int) -> str:
    return f"masquerade{family}"


def masquerade(addresses: Iterable[tuple[Net, str]]) -> str:
    """The whole table for the (address, label) pairs: afterwards the maps hold these elements and no others."""
    lines = [
        f"add table inet {TABLE}",
        f"add map inet {TABLE} {masquerade_map(4)} {{ type ipv4_addr : verdict ; }}",
        f"add map inet {TABLE} {masquerade_map(6)} {{ type ipv6_addr : verdict ; }}",
        f"add chain inet {TABLE} {POSTROUTING} {{ type nat hook postrouting priority srcnat ; }}",
        f"flush chain inet {TABLE} {POSTROUTING}",
        f"add rule inet {TABLE} {POSTROUTING} ip saddr vmap @{masquerade_map(4)}",
        f"add rule inet {TABLE} {POSTROUTING} ip6 saddr vmap @{masquerade_map(6)}",
        f"flush map inet {TABLE} {masquerade_map(4)}",
        f"flush map inet {TABLE} {masquerade_map(6)}",
    ]
    elements = []
    for address, label in addresses:
        lines += _subnet_chain(address)
        verdict = f'{address.ip.text} comment "{label}" : jump {masquerade_chain(address)}'
        elements.append(f"add element inet {TABLE} {masquerade_map(address.family)} {{ {verdict} }}")
    return "\n".join([*dict.fromkeys(lines), *elements]) + "\n"


def _subnet_chain(address: Net) -> list[str]:
    """Traffic within the subnet and multicast keep their source; the lines repeat for addresses of one subnet."""
    chain, ip = f"inet {TABLE} {masquerade_chain(address)}", IP[address.family]
    return [
        f"add chain {chain}",
        f"flush chain {chain}",
        f"add rule {chain} {ip} daddr {{ {address.network.text}, {MULTICAST[address.family]} }} return",
        f"add rule {chain} masquerade",
    ]


def spoof_guard(ports: Iterable[tuple[str, bytes, str]]) -> str:
    """The whole table for the (host interface, MAC address, label) triples: afterwards the sets hold no others."""
    lines = [
        f"add table bridge {TABLE}",
        f"add set bridge {TABLE} {GUARDED} {{ type ifname ; }}",
        f"add set bridge {TABLE} {ALLOWED} {{ type ifname . ether_addr ; }}",
        f"add chain bridge {TABLE} {GUARD_CHAIN} {{ type filter hook prerouting priority dstnat ; }}",
        f"flush chain bridge {TABLE} {GUARD_CHAIN}",
        f"add rule bridge {TABLE} {GUARD_CHAIN} iifname @{GUARDED} iifname . ether saddr != @{ALLOWED} drop",
        f"flush set bridge {TABLE} {GUARDED}",
        f"flush set bridge {TABLE} {ALLOWED}",
    ]
    for port, mac, label in ports:
        lines.append(f'add element bridge {TABLE} {ALLOWED} {{ {port} . {mac_text(mac)} comment "{label}" }}')
        lines.append(f'add element bridge {TABLE} {GUARDED} {{ {port} comment "{label}" }}')
    return "\n".join(lines) + "\n"
