"""The portmap feature: ports of the host that are mapped to the container, each an element of a map."""

from __future__ import annotations

from cni.config.portmap import ALL, MARK_BIT, NOBODY
from cni.plan.nftables import INET, RulesetFragment
from cni.protocol.owner import digest
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.config.portmap import PortMapping, Ports
    from cni.plan.nftrule import Table
    from cni.plan.operations import Operation
    from cni.protocol.address import IP, Net

OPEN_PORTS = f"hostports-{MARK_BIT}"  # the chain of ports without conditions


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


class FlowsBeforeMapping(Record):
    """Deletion of UDP flows to these ports of the host from before the mapping to `ip`: they would bypass it."""

    mappings: tuple[PortMapping, ...]
    ip: IP

    def describe(self) -> str:
        return _conntrack_command(self.mappings)


class FlowsThroughMapping(Record):
    """Deletion of UDP flows through these ports to `ip`, when the ports are released; hence planned before them."""

    mappings: tuple[PortMapping, ...]
    ip: IP

    def describe(self) -> str:
        return f"at DEL: {_conntrack_command(self.mappings)} --reply-src {self.ip.text}"


def _conntrack_command(mappings: tuple[PortMapping, ...]) -> str:
    return f"conntrack -D -p udp --orig-port-dst {','.join([str(mapping.host_port) for mapping in mappings])}"


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
    operations: list[Operation] = []
    for family in (4, 6):
        address = next((address for address in addresses if address.family == family), None)
        mappings = [mapping for mapping in conf.mappings if mapping.serves(family)]
        if address is None or not mappings:
            continue
        if conf.masqueraded != NOBODY:
            operations.append(Hairpin(address, conf.masqueraded == ALL, label))
        udp = tuple([mapping for mapping in mappings if mapping.protocol == "udp"])
        if udp:
            operations.append(FlowsThroughMapping(udp, address.ip))
        held = tuple([HostPort(mapping, address.ip, label) for mapping in mappings])
        for port in held:
            if conf.conditions(family) or conf.mark_bit != MARK_BIT:
                operations.append(Condition(port, conf.conditions(family), conf.mark_bit))
            operations.append(port)
        operations.append(PortOverlap(held))
        if udp:
            operations.append(FlowsBeforeMapping(udp, address.ip))
    return tuple(operations)


def route_localnet(interface: str) -> str:
    return f"net/ipv4/conf/{interface}/route_localnet"


def loopback_routing(
    conf: Ports, addresses: tuple[Net, ...], toward: str, label: str, *, pair: bool = False
) -> tuple[LoopbackRouting, ...]:
    """Returns the operation for route_localnet. `toward`: the interface towards the container, which has to exist;
    empty for none.
    """
    reachable = any(mapping.serves(4) and _from_loopback(mapping) for mapping in conf.mappings)
    address = next((address for address in addresses if address.family == 4), None)
    if address is None or not (reachable and toward) or conf.masqueraded == NOBODY:
        return ()
    return (LoopbackRouting(toward, address, label, pair),)


def _from_loopback(mapping: PortMapping) -> bool:
    """Returns True if the mapping is reachable by an address of 127.0.0.0/8."""
    return mapping.host_ip is None or mapping.host_ip.is_loopback


def ruleset(hairpins: Sequence[Hairpin], conditions: Sequence[Condition]) -> RulesetFragment:
    """Returns the maps of host ports and the chains for destination NAT and source NAT."""
    bits = [MARK_BIT, *[condition.mark_bit for condition in conditions]]

    def content() -> Table:
        from cni.plan import portmap_rules

        return portmap_rules.table(hairpins, conditions)

    chains = ["hostports", "prerouting", "output", "loopback", "loopback-answers"]
    for bit in bits:
        chains += [f"hostports-{bit}", f"hairpin-bit{bit}"]
    chains += [condition.chain for condition in conditions] + [hairpin.chain for hairpin in hairpins]
    return RulesetFragment(INET, tuple(chains), content)
