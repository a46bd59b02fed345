"""The portmap feature: ports of the host that are mapped to the container, each an element of a map."""

from __future__ import annotations

from cni.config.portmap import ALL, MARK_BIT, NOBODY
from cni.plan.nfttext import ADDRESS_TYPE, INET, PROTOCOL, RulesetFragment, chain_lines, standby_map
from cni.protocol.owner import digest
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.config.portmap import PortMapping, Ports
    from cni.plan.operations import Operation
    from cni.protocol.address import IP, Net

OPEN_PORTS = f"hostports-{MARK_BIT}"  # the chain of ports without conditions
LOOPBACK = {4: "127.0.0.0/8", 6: "::1"}


class HostPort(Record):
    """A port of the host, mapped to `ip` and the mapping's container port. No other container may have it."""

    mapping: PortMapping
    ip: IP
    label: str

    def describe(self) -> str:
        return f"nft add element inet podwire {host_port_map(self)} {{ {host_port_key(self)} : {self.target} }}"

    @property
    def target(self) -> str:
        return f"{self.ip.text} . {self.mapping.container_port}"


class PortOverlap(Record):
    """A check that no other container has the ports on other addresses of the host: both would share them."""

    ports: tuple[HostPort, ...]

    def describe(self) -> str:
        family = self.ports[0].ip.family
        return f"nft list map inet podwire hostip_hostports{family}"


class UnmappedFlows(Record):
    """Deletion of UDP flows to these ports of the host from before the mapping to `ip`: they would bypass it."""

    mappings: tuple[PortMapping, ...]
    ip: IP

    def describe(self) -> str:
        return _forgetting(self.mappings)


class MappedFlows(Record):
    """Deletion of UDP flows through these ports to `ip`, when the ports are released; hence planned before them."""

    mappings: tuple[PortMapping, ...]
    ip: IP

    def describe(self) -> str:
        return f"at DEL: {_forgetting(self.mappings)} --reply-src {self.ip.text}"


def _forgetting(mappings: tuple[PortMapping, ...]) -> str:
    return f"conntrack -D -p udp --orig-port-dst {','.join([str(one.host_port) for one in mappings])}"


class Condition(Record):
    """A condition of a port: only packets that match `expression` (nft) are mapped; also used for another mark bit."""

    port: HostPort
    expression: str
    mark_bit: int

    @property
    def chain(self) -> str:
        return f"condition-{digest(self.expression, str(self.mark_bit), size=6).hex()}"

    def describe(self) -> str:
        place = f"condition_{host_port_map(self.port)}"
        return f"nft add element inet podwire {place} {{ {host_port_key(self.port)} : goto {self.chain} }}"


class Hairpin(Record):
    """Source NAT of connections through a host port from the container's own subnet, or from everywhere: replies would
    otherwise bypass the host.
    """

    address: Net
    everybody: bool
    label: str

    @property
    def chain(self) -> str:
        return "hairpin-all" if self.everybody else f"hairpin-{self.address.network.text.replace(':', '_')}"

    def describe(self) -> str:
        element = f"{self.address.ip.text} : jump {self.chain}"
        return f"nft add element inet podwire hairpin{self.address.family} {{ {element} }}"


class LoopbackRouting(Record):
    """route_localnet of the interface towards the container, for its `address`. Shared by containers, unless `label` is
    empty: then the setting is deleted with the interface.

    `pair`: the interface is the host's end of a pair that another plugin has made for this container. A third plugin
    may need its ingress qdisc, as the reference bandwidth does, which fails if there is one.
    """

    interface: str
    address: Net
    label: str
    pair: bool = False

    @property
    def key(self) -> str:
        return route_localnet(self.interface)

    def describe(self) -> str:
        return f"sysctl -w {self.key.replace('/', '.')}=1"


def host_port_map(port: HostPort) -> str:
    return f"{'hostip_' if port.mapping.host_ip else ''}hostports{port.ip.family}"


def host_port_key(port: HostPort) -> str:
    ip = f"{port.mapping.host_ip.text} . " if port.mapping.host_ip else ""
    return f"{ip}{port.mapping.protocol} . {port.mapping.host_port}"


def operations(conf: Ports, addresses: tuple[Net, ...], label: str) -> tuple[Operation, ...]:
    """Returns the operations of mapped ports. `addresses`: the container's; each family's first is used. A port's
    condition comes before it.
    """
    found: list[Operation] = []
    for family in (4, 6):
        address = next((one for one in addresses if one.family == family), None)
        mappings = [one for one in conf.mappings if one.serves(family)]
        if address is None or not mappings:
            continue
        if conf.masqueraded != NOBODY:
            found.append(Hairpin(address, conf.masqueraded == ALL, label))
        udp = tuple([mapping for mapping in mappings if mapping.protocol == "udp"])
        if udp:
            found.append(MappedFlows(udp, address.ip))
        held = tuple([HostPort(mapping, address.ip, label) for mapping in mappings])
        for port in held:
            if conf.conditions(family) or conf.mark_bit != MARK_BIT:
                found.append(Condition(port, conf.conditions(family), conf.mark_bit))
            found.append(port)
        found.append(PortOverlap(held))
        if udp:
            found.append(UnmappedFlows(udp, address.ip))
    return tuple(found)


def route_localnet(interface: str) -> str:
    return f"net/ipv4/conf/{interface}/route_localnet"


def loopback_routing(
    conf: Ports, addresses: tuple[Net, ...], toward: str, label: str, *, pair: bool = False
) -> tuple[LoopbackRouting, ...]:
    """Returns the operation for route_localnet. `toward`: the interface towards the container, which has to exist;
    empty for none.
    """
    reachable = any(mapping.serves(4) and _from_loopback(mapping) for mapping in conf.mappings)
    address = next((one for one in addresses if one.family == 4), None)
    if address is None or not (reachable and toward) or conf.masqueraded == NOBODY:
        return ()
    return (LoopbackRouting(toward, address, label, pair),)


def _from_loopback(mapping: PortMapping) -> bool:
    """Returns True if the mapping is reachable by an address of 127.0.0.0/8."""
    return mapping.host_ip is None or mapping.host_ip.is_loopback


def ruleset(hairpins: Sequence[Hairpin], conditions: Sequence[Condition]) -> RulesetFragment:
    """Returns the maps of host ports and the chains for destination NAT and source NAT.

    The bit in a packet's mark means "through a host port"; it is cleared if no port is found.
    """
    bits = [MARK_BIT, *[one.mark_bit for one in conditions]]

    def lines() -> list[str]:
        found = _port_maps()
        for bit in bits:
            found += _marking(bit)
        for one in conditions:
            found += chain_lines(one.chain, f"{one.expression} goto hostports-{one.mark_bit}")
        for hairpin in hairpins:
            found += chain_lines(hairpin.chain, f"{_source(hairpin)}masquerade")
        return found + _entrances()

    chains = ["hostports", "prerouting", "output", "loopback", "loopback-answers"]
    for bit in bits:
        chains += [f"hostports-{bit}", f"hairpin-bit{bit}"]
    chains += [one.chain for one in conditions] + [one.chain for one in hairpins]
    return RulesetFragment(INET, tuple(chains), lines)


def _source(hairpin: Hairpin) -> str:
    if hairpin.everybody:
        return ""
    family = hairpin.address.family
    return f"{PROTOCOL[family]} saddr {{ {hairpin.address.network.text}, {LOOPBACK[family]} }} "


def _entrances() -> list[str]:
    """Returns the base chains for packets from outside and from the host itself, and those that drop packets for
    127.0.0.0/8 from outside, as the kernel does without route_localnet. Replies are marked for the interfaces' own
    filters (cni.effects.route_localnet).
    """
    conditional = []
    for family, protocol in PROTOCOL.items():
        conditional.append(f"{protocol} daddr . meta l4proto . th dport vmap @condition_hostip_hostports{family}")
        conditional.append(f"meta nfproto ipv{family} meta l4proto . th dport vmap @condition_hostports{family}")
    found = chain_lines("hostports", *conditional, f"goto {OPEN_PORTS}")
    # IPv6 has no route_localnet: answers to ::1 would get lost, and who asks for localhost would wait for them.
    for hook, priority, first in (
        ("prerouting", "dstnat", []),
        ("output", "-100", [f"ip6 daddr {LOOPBACK[6]} return"]),
    ):
        rules = [*first, "fib daddr type local jump hostports"]
        found += chain_lines(hook, *rules, hook=f"nat hook {hook} priority {priority}")
    martian = 'iifname != "lo" ip daddr 127.0.0.0/8 drop'
    answer = f'iifname != "lo" ip daddr 127.0.0.0/8 ct direction reply meta mark set meta mark | {1 << MARK_BIT:#x}'
    return [
        *found,
        *chain_lines("loopback", martian, hook="filter hook prerouting priority raw"),
        *chain_lines("loopback-answers", answer, hook="filter hook prerouting priority -99"),
    ]


def _port_maps() -> list[str]:
    lines = []
    for family in (4, 6):
        ip = ADDRESS_TYPE[family]
        target = f"{ip} . inet_service"
        for name, front in (("hostports", ""), ("hostip_hostports", f"{ip} . ")):
            key = f"{front}inet_proto . inet_service"
            lines.append(f"add map {INET} {name}{family} {{ type {key} : {target} ; }}")
            lines.append(f"add map {INET} condition_{name}{family} {{ type {key} : verdict ; }}")
            lines.append(f"add map {INET} {standby_map(f'{name}{family}')} {{ type {key} . {target} : verdict ; }}")
        lines.append(f"add map {INET} hairpin{family} {{ type {ip} : verdict ; }}")
    return lines


def _marking(bit: int) -> list[str]:
    """Returns the chains of a mark bit: a destination that is found ends the chain with the bit set."""
    mark = 1 << bit
    rules = [f"meta mark set meta mark | {mark:#x}"]
    for family in (4, 6):
        ip = PROTOCOL[family]
        rules.append(f"dnat {ip} to {ip} daddr . meta l4proto . th dport map @hostip_hostports{family}")
        rules.append(f"meta nfproto ipv{family} dnat {ip} to meta l4proto . th dport map @hostports{family}")
    rules.append(f"meta mark set meta mark & {0xFFFFFFFF ^ mark:#x}")
    back = [f"meta mark & {mark:#x} == {mark:#x} {PROTOCOL[family]} daddr vmap @hairpin{family}" for family in (4, 6)]
    return [
        *chain_lines(f"hostports-{bit}", *rules),
        *chain_lines(f"hairpin-bit{bit}", *back, hook="nat hook postrouting priority srcnat"),
    ]


def port_text(port: HostPort) -> str:
    element = f'{host_port_key(port)} comment "{port.label}" : {port.target}'
    return f"add element {INET} {host_port_map(port)} {{ {element} }}"


def standby_text(port: HostPort) -> str:
    """Returns the element of a port that the container holds by another attachment: key, target and chain."""
    element = f'{host_port_key(port)} . {port.target} comment "{port.label}" : goto {OPEN_PORTS}'
    return f"add element {INET} {standby_map(host_port_map(port))} {{ {element} }}"


def hairpin_text(hairpin: Hairpin) -> str:
    element = f'{hairpin.address.ip.text} comment "{hairpin.label}" : jump {hairpin.chain}'
    return f"add element {INET} hairpin{hairpin.address.family} {{ {element} }}"
