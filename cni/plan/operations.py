"""The operations of every attachment: each change of a host is one of these records, or one in a feature's file.

Each describes itself as a shell command. cni.effects applies, releases and compares it with the kernel's state.
"""

from __future__ import annotations

from cni.protocol.address import IP, Net, mac_text
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from cni.protocol.result import Route

    class Operation(Protocol):
        """A change of the host; those of features that few networks use are in the features' files."""

        def describe(self) -> str: ...


class Bridge(Record):
    """A bridge that exists and is up; shared by attachments, so DEL keeps it. `mtu` 0: the kernel's default."""

    name: str
    mac: bytes
    mtu: int
    promiscuous: bool
    vlan_aware: bool

    def describe(self) -> str:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        promisc = " promisc on" if self.promiscuous else ""
        filtering = " vlan_filtering 1" if self.vlan_aware else ""
        return f"ip link add {self.name} up address {mac_text(self.mac)}{mtu}{promisc} type bridge{filtering}"


class IgnoreAdvertisements(Record):
    """accept_ra=0 for an interface of the host, since a container may send router advertisements.

    Otherwise they would add an address and a default route to the host (CVE-2020-10749).
    """

    interface: str

    @property
    def key(self) -> str:
        return f"net/ipv6/conf/{self.interface}/accept_ra"

    def describe(self) -> str:
        return f"sysctl -w {self.key}=0"


class Veth(Record):
    """A pair: the host's end up, and a port of the bridge if one is named; the container's end still down.

    The alias on the host's end holds the owner's label and the data to restore flushed rules. `group`: for
    DEL, the group of the host's end, whose links are deleted together.
    """

    host_interface: str
    host_mac: bytes
    ifname: str
    mac: bytes
    mtu: int
    bridge: str
    alias: str
    group: int = 0

    def describe(self) -> str:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        master = f" master {self.bridge}" if self.bridge else ""
        return (
            f"ip link add {self.host_interface} address {mac_text(self.host_mac)}{mtu}{master} up"
            f" type veth peer {self.ifname} address {mac_text(self.mac)}{mtu} netns CONTAINER"
        )


class BridgePort(Record):
    host_interface: str
    hairpin: bool
    isolated: bool

    def describe(self) -> str:
        hairpin = " hairpin on" if self.hairpin else ""
        isolated = " isolated on" if self.isolated else ""
        return f"bridge link set dev {self.host_interface}{hairpin}{isolated}"


class ContainerSysctl(Record):
    """A sysctl of the container. `required`: the key must exist; otherwise a kernel without it is tolerated."""

    key: str
    value: str
    required: bool = False

    def describe(self) -> str:
        return f"ip netns exec CONTAINER sysctl -w {self.key.replace('/', '.')}={self.value}"


class Forwarding(Record):
    """The host forwards packets of the family; shared, so DEL keeps it."""

    family: int

    @property
    def key(self) -> str:
        return "net/ipv4/ip_forward" if self.family == 4 else "net/ipv6/conf/all/forwarding"

    def describe(self) -> str:
        return f"sysctl -w {self.key.replace('/', '.')}=1"


class ContainerAddress(Record):
    """An address of the container. `detect_duplicates`: IPv6 duplicate address detection (RFC 4862) runs first.

    `subnet_on_link`: the kernel adds a route to the subnet by the interface.
    """

    ifname: str
    address: Net
    detect_duplicates: bool
    subnet_on_link: bool = True

    def describe(self) -> str:
        nodad = " nodad" if self.address.family == 6 and not self.detect_duplicates else ""
        noprefixroute = "" if self.subnet_on_link else " noprefixroute"
        return f"ip -n CONTAINER addr add {self.address.text} dev {self.ifname}{nodad}{noprefixroute}"


class ContainerUp(Record):
    ifname: str

    def describe(self) -> str:
        return f"ip -n CONTAINER link set {self.ifname} up"


class ContainerRoute(Record):
    """A route of the container. `route.gw` is None for one on the link; `source`: the preferred source address."""

    ifname: str
    route: Route
    source: IP | None = None

    def describe(self) -> str:
        tokens = [f"ip -n CONTAINER route add {self.route.dst.text}"]
        if self.route.gw is not None:
            tokens.append(f"via {self.route.gw.text}")
        tokens.append(f"dev {self.ifname}")
        for word, value in (
            ("table", self.route.table),
            ("scope", self.route.scope),
            ("metric", self.route.priority or None),
            ("mtu", self.route.mtu or None),
            ("advmss", self.route.advmss or None),
            ("src", self.source.text if self.source is not None else None),
        ):
            if value is not None:
                tokens.append(f"{word} {value}")
        return " ".join(tokens)


class GatewayAddress(Record):
    """The bridge is the containers' gateway; shared. `force`: another address in its place is removed."""

    bridge: str
    address: Net
    force: bool

    def describe(self) -> str:
        return f"ip addr {'replace' if self.force else 'add'} {self.address.text} dev {self.bridge}"


class WaitReady(Record):
    """A wait until the port forwards and the addresses are usable; with `announce`, they are then announced.

    An announcement before the port forwards is lost, and neighbours would keep the old MAC of a reused address.
    """

    host_interface: str
    ifname: str
    mac: bytes
    detect_duplicates: bool
    announce: bool

    def describe(self) -> str:
        then = f", then announce the addresses of {self.ifname}" if self.announce else ""
        return f"wait for {self.host_interface} to forward{then}"
