"""The VLAN feature: the VLANs of a container's bridge port, and the gateway's interface in one of them."""

from __future__ import annotations

from cni.plan.address import gateway_interface
from cni.plan.link import bridge_mac
from cni.plan.operations import IgnoreAdvertisements
from cni.protocol.address import mac_text
from cni.protocol.owner import mac_of
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation

DEFAULT_VLAN = 1  # what the kernel makes the native VLAN of every new port (net/bridge/br_vlan.c)


class PortVlan(Record):
    """Membership of a bridge port in VLANs first to last; `native`: untagged, and what arrives untagged is in it."""

    port: str
    first: int
    last: int
    native: bool

    def describe(self) -> str:
        vid = f"{self.first}-{self.last}" if self.last > self.first else f"{self.first}"
        return f"bridge vlan add dev {self.port} vid {vid}{' pvid untagged' if self.native else ''}"


class RemovePortVlan(Record):
    """Removal of a new port's default VLAN."""

    port: str
    vid: int

    def describe(self) -> str:
        return f"bridge vlan del dev {self.port} vid {self.vid}"


class VlanGateway(Record):
    """The gateway's interface in one VLAN: a veth pair of the host, one end a port of the bridge; shared."""

    name: str
    mac: bytes
    bridge: str
    port: str
    vlan: int

    def describe(self) -> str:
        return (
            f"ip link add {self.name} up address {mac_text(self.mac)} type veth peer {self.port} master {self.bridge}"
        )


def port_operations(attachment: Attachment) -> list[Operation]:
    """The trunk's VLANs, then the native one; a trunk without a VLAN of its own keeps the default one native.

    The other way round, a trunk that holds the native VLAN would make it tagged (kernel net/bridge/br_vlan.c).
    """
    conf, port = attachment.conf, attachment.names.host_interface
    operations: list[Operation] = []
    wanted = conf.vlan == DEFAULT_VLAN or any(trunk.first <= DEFAULT_VLAN <= trunk.last for trunk in conf.trunk)
    if conf.vlan and not conf.preserve_default_vlan and not wanted:
        operations.append(RemovePortVlan(port, DEFAULT_VLAN))
    operations += [PortVlan(port, trunk.first, trunk.last, native=False) for trunk in conf.trunk]
    if conf.vlan:
        operations.append(PortVlan(port, conf.vlan, conf.vlan, native=True))
    return operations


def gateway(attachment: Attachment) -> VlanGateway:
    bridge, vlan, name = attachment.conf.bridge, attachment.conf.vlan, gateway_interface(attachment)
    mac = mac_of("vlan gateway", bridge_mac(attachment).hex(), name)
    return VlanGateway(name, mac, bridge, f"p{vlan}.{mac.hex()[4:]}", vlan)


def gateway_operations(attachment: Attachment) -> list[Operation]:
    """Returns the gateway's interface, on which the host ignores router advertisements."""
    operations: list[Operation] = [gateway(attachment)]
    if attachment.facts.ipv6:
        operations.append(IgnoreAdvertisements(gateway_interface(attachment)))
    return operations
