"""The static part of podwire's nftables as text for `nft -f`: loaded when missing, in one transaction.

Every text can be loaded again at any time: what exists stays, rules are flushed and written anew within the same
transaction, so that connection tracking is never without a NAT rule in between. A text brings the elements that it is
given, and leaves those that are there.
"""

from __future__ import annotations

from cni.config.portmap import MARK_BIT
from cni.plan.masquerade import masquerade_chain
from cni.protocol.address import MULTICAST, mac_text
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cni.plan.portmap import Condition, Hairpin, HostPort
    from cni.protocol.address import Net

TABLE = "podwire"
INET, BRIDGE = f"inet {TABLE}", f"bridge {TABLE}"
LOOPBACK = {4: "127.0.0.0/8", 6: "::1"}
IP = {4: "ip", 6: "ip6"}
ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}

POSTROUTING = "postrouting"
OPEN_PORTS = f"hostports-{MARK_BIT}"  # the chain of ports without conditions
GUARD_CHAIN = "prerouting"
ALLOWED, GUARDED = "allowed", "guarded"
ISOLATION = "isolation"
ISOLATING, SAME_BRIDGE, ISOLATED = "isolating", "same_bridge", "isolated"


class RulesetFragment(Record):
    """What is loaded as one: `chains` are those that must not be without rules, `lines` tells what makes them."""

    table: str
    chains: tuple[str, ...]
    lines: Callable[[], list[str]]

    def text(self, elements: Iterable[str]) -> str:
        return "\n".join([f"add table {self.table}", *dict.fromkeys(self.lines()), *elements]) + "\n"


def _chain(name: str, *rules: str, hook: str = "") -> list[str]:
    """A chain with these rules and no others; `hook` makes it a base chain."""
    base = f" {{ type {hook} ; }}" if hook else ""
    chain = f"{INET} {name}"
    return [f"add chain {chain}{base}", f"flush chain {chain}", *[f"add rule {chain} {rule}" for rule in rules]]


def masquerade_map(family: int) -> str:
    return f"masquerade{family}"


def masquerade(addresses: Sequence[Net]) -> RulesetFragment:
    """The maps that lead from an address to its subnet's chain, and these subnets' chains."""

    def lines() -> list[str]:
        maps = [(masquerade_map(family), ADDRESS[family]) for family in (4, 6)]
        found = [f"add map {INET} {name} {{ type {address} : verdict ; }}" for name, address in maps]
        jumps = [f"{IP[family]} saddr vmap @{masquerade_map(family)}" for family in (4, 6)]
        found += _chain(POSTROUTING, *jumps, hook="nat hook postrouting priority srcnat")
        for address in addresses:
            stays = f"{IP[address.family]} daddr {{ {address.network.text}, {MULTICAST[address.family]} }} return"
            found += _chain(masquerade_chain(address), stays, "masquerade")
        return found

    return RulesetFragment(INET, (POSTROUTING, *map(masquerade_chain, addresses)), lines)


def masquerade_element(address: Net, label: str) -> str:
    verdict = f'{address.ip.text} comment "{label}" : jump {masquerade_chain(address)}'
    return f"add element {INET} {masquerade_map(address.family)} {{ {verdict} }}"


def spoof_guard() -> RulesetFragment:
    chain = f"{BRIDGE} {GUARD_CHAIN}"

    def lines() -> list[str]:
        return [
            f"add set {BRIDGE} {GUARDED} {{ type ifname ; }}",
            f"add set {BRIDGE} {ALLOWED} {{ type ifname . ether_addr ; }}",
            f"add chain {chain} {{ type filter hook prerouting priority dstnat ; }}",
            f"flush chain {chain}",
            f"add rule {chain} iifname @{GUARDED} iifname . ether saddr != @{ALLOWED} drop",
        ]

    return RulesetFragment(BRIDGE, (GUARD_CHAIN,), lines)


def guard_elements(port: str, mac: bytes, label: str) -> list[str]:
    return [
        f'add element {BRIDGE} {ALLOWED} {{ {port} . {mac_text(mac)} comment "{label}" }}',
        f'add element {BRIDGE} {GUARDED} {{ {port} comment "{label}" }}',
    ]


def isolation() -> RulesetFragment:
    """Bridges that isolate, and pairs of a bridge with itself: what stays on one may pass, unless it is isolated.

    A drop here is final, whatever other chains accept (nftables(8), verdict statements).
    """

    def lines() -> list[str]:
        pair = "type ifname . ifname"
        return [
            f"add set {INET} {ISOLATING} {{ type ifname ; }}",
            *[f"add set {INET} {name} {{ {pair} ; }}" for name in (SAME_BRIDGE, ISOLATED)],
            *_chain(
                ISOLATION,
                f"iifname . oifname @{ISOLATED} drop",
                f"iifname . oifname @{SAME_BRIDGE} return",
                f"iifname @{ISOLATING} oifname @{ISOLATING} drop",
                hook="filter hook forward priority filter",
            ),
        ]

    return RulesetFragment(INET, (ISOLATION,), lines)


def host_ports(hairpins: Sequence[Hairpin], conditions: Sequence[Condition]) -> RulesetFragment:
    """Ports of the host: where to, and on the way back from whom they seem to come.

    The bit in a packet's mark says that it has come through a host port; for what finds no port, it is cleared.
    """
    bits = [MARK_BIT, *[one.mark_bit for one in conditions]]

    def lines() -> list[str]:
        found = _port_maps()
        for bit in bits:
            found += _marking(bit)
        for one in conditions:
            found += _chain(one.chain, f"{one.expression} goto hostports-{one.mark_bit}")
        for hairpin in hairpins:
            found += _chain(hairpin.chain, f"{_source(hairpin)}masquerade")
        return found + _entrances()

    chains = ["hostports", "prerouting", "output", "loopback", "loopback-answers"]
    for bit in bits:
        chains += [f"hostports-{bit}", f"hairpin-bit{bit}"]
    chains += [one.chain for one in conditions] + [one.chain for one in hairpins]
    return RulesetFragment(INET, tuple(chains), lines)


def standby_map(name: str) -> str:
    """The map beside a map of ports: attachments that take over when the one that holds a port goes."""
    return f"standby_{name}"


def _source(hairpin: Hairpin) -> str:
    if hairpin.everybody:
        return ""
    family = hairpin.address.family
    return f"{IP[family]} saddr {{ {hairpin.address.network.text}, {LOOPBACK[family]} }} "


def _entrances() -> list[str]:
    """From outside and from the host itself; and what must not enter, since where route_localnet is set the kernel
    no longer sees to that. Answers are marked for the interfaces' own filters (cni.effects.route_localnet).
    """
    conditional = []
    for family in (4, 6):
        conditional.append(f"{IP[family]} daddr . meta l4proto . th dport vmap @condition_hostip_hostports{family}")
        conditional.append(f"meta nfproto ipv{family} meta l4proto . th dport vmap @condition_hostports{family}")
    found = _chain("hostports", *conditional, f"goto {OPEN_PORTS}")
    # IPv6 has no route_localnet: answers to ::1 would get lost, and who asks for localhost would wait for them.
    for hook, priority, first in (
        ("prerouting", "dstnat", []),
        ("output", "-100", [f"ip6 daddr {LOOPBACK[6]} return"]),
    ):
        rules = [*first, "fib daddr type local jump hostports"]
        found += _chain(hook, *rules, hook=f"nat hook {hook} priority {priority}")
    martian = 'iifname != "lo" ip daddr 127.0.0.0/8 drop'
    answer = f'iifname != "lo" ip daddr 127.0.0.0/8 ct direction reply meta mark set meta mark | {1 << MARK_BIT:#x}'
    return [
        *found,
        *_chain("loopback", martian, hook="filter hook prerouting priority raw"),
        *_chain("loopback-answers", answer, hook="filter hook prerouting priority -99"),
    ]


def _port_maps() -> list[str]:
    lines = []
    for family in (4, 6):
        ip = ADDRESS[family]
        target = f"{ip} . inet_service"
        for name, front in (("hostports", ""), ("hostip_hostports", f"{ip} . ")):
            key = f"{front}inet_proto . inet_service"
            lines.append(f"add map {INET} {name}{family} {{ type {key} : {target} ; }}")
            lines.append(f"add map {INET} condition_{name}{family} {{ type {key} : verdict ; }}")
            lines.append(f"add map {INET} {standby_map(f'{name}{family}')} {{ type {key} . {target} : verdict ; }}")
        lines.append(f"add map {INET} hairpin{family} {{ type {ip} : verdict ; }}")
    return lines


def _marking(bit: int) -> list[str]:
    """A destination that is found ends the chain with the bit set."""
    mark = 1 << bit
    rules = [f"meta mark set meta mark | {mark:#x}"]
    for family in (4, 6):
        ip = IP[family]
        rules.append(f"dnat {ip} to {ip} daddr . meta l4proto . th dport map @hostip_hostports{family}")
        rules.append(f"meta nfproto ipv{family} dnat {ip} to meta l4proto . th dport map @hostports{family}")
    rules.append(f"meta mark set meta mark & {0xFFFFFFFF ^ mark:#x}")
    back = [f"meta mark & {mark:#x} == {mark:#x} {IP[family]} daddr vmap @hairpin{family}" for family in (4, 6)]
    return [
        *_chain(f"hostports-{bit}", *rules),
        *_chain(f"hairpin-bit{bit}", *back, hook="nat hook postrouting priority srcnat"),
    ]


def host_port_element(port: HostPort) -> str:
    from cni.plan.portmap import host_port_key, host_port_map

    element = f'{host_port_key(port)} comment "{port.label}" : {port.target}'
    return f"add element {INET} {host_port_map(port)} {{ {element} }}"


def standby_element(port: HostPort) -> str:
    """The port of a container that holds it by another attachment: key and target, and where its packets go."""
    from cni.plan.portmap import host_port_key, host_port_map

    element = f'{host_port_key(port)} . {port.target} comment "{port.label}" : goto {OPEN_PORTS}'
    return f"add element {INET} {standby_map(host_port_map(port))} {{ {element} }}"


def hairpin_element(hairpin: Hairpin) -> str:
    element = f'{hairpin.address.ip.text} comment "{hairpin.label}" : jump {hairpin.chain}'
    return f"add element {INET} hairpin{hairpin.address.family} {{ {element} }}"
