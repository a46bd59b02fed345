"""The ports feature: ports of the host that lead to the container, each an element of a map."""

from __future__ import annotations

from cni.config.portmap import ALL, MARK_BIT, NOBODY
from cni.protocol.owner import digest
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.portmap import PortMapping, Ports
    from cni.plan.operations import Operation
    from cni.protocol.address import IP, Net


class HostPort(Record):
    """What arrives at a port of the host goes to `ip` and the mapping's container port. Nobody else may have it."""

    mapping: PortMapping
    ip: IP
    label: str

    def describe(self) -> str:
        return f"nft add element inet podwire {host_port_map(self)} {{ {host_port_key(self)} : {self.target} }}"

    @property
    def target(self) -> str:
        return f"{self.ip.text} . {self.mapping.container_port}"


class PortOverlap(Record):
    """Refuses an attachment whose ports another container has on other addresses of the host: both would share them."""

    ports: tuple[HostPort, ...]

    def describe(self) -> str:
        family = self.ports[0].ip.family
        return f"nft list map inet podwire hostip_hostports{family}"


class UnmappedFlows(Record):
    """UDP connections to these ports of the host that began before they led to `ip`: they would keep to their way."""

    mappings: tuple[PortMapping, ...]
    ip: IP

    def describe(self) -> str:
        return _forgetting(self.mappings)


class MappedFlows(Record):
    """UDP connections through these ports to `ip`: forgotten when the ports are released, hence planned before them."""

    mappings: tuple[PortMapping, ...]
    ip: IP

    def describe(self) -> str:
        return f"at DEL: {_forgetting(self.mappings)} --reply-src {self.ip.text}"


def _forgetting(mappings: tuple[PortMapping, ...]) -> str:
    return f"conntrack -D -p udp --orig-port-dst {','.join([str(one.host_port) for one in mappings])}"


class Condition(Record):
    """Only what meets `expression` (nft) goes through the port; also where another bit marks it."""

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
    """Connections through a host port that come from the container's own subnet, or from everybody, take the host's
    address: the answers would otherwise find a way past it.
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
    """127.0.0.1 may be left through the interface that leads to the container, for its `address`. Shared by
    containers, unless `label` is empty: then the setting goes with the interface.

    `pair`: the interface is the host's end of a pair that another plugin has made for this container. A third one may
    want its place for filters, as the reference bandwidth does, which fails where the place is taken.
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
    """`addresses`: the container's, of which each family's first is used. What restrains a port comes before it."""
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
    """`toward`: the interface that leads to the container, which has to be there already; empty for none."""
    reachable = any(mapping.serves(4) and _from_loopback(mapping) for mapping in conf.mappings)
    address = next((one for one in addresses if one.family == 4), None)
    if address is None or not (reachable and toward) or conf.masqueraded == NOBODY:
        return ()
    return (LoopbackRouting(toward, address, label, pair),)


def _from_loopback(mapping: PortMapping) -> bool:
    """The mapping can be reached by an address of 127.0.0.0/8."""
    return mapping.host_ip is None or mapping.host_ip.is_loopback
