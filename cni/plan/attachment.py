"""One attachment: who, under which configuration, on what machine, with which lease; and its plan."""

from __future__ import annotations

from cni.plan import address, link, masquerade
from cni.spec.record import Record
from cni.spec.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.netconf import NetConf
    from cni.plan.operations import Operation
    from cni.spec.address import IP
    from cni.spec.owner import Owner

FEATURES = (link, masquerade, address)
CONTAINER_INDEX = 2  # the container's place among link.interfaces


class Facts(Record):
    """What a plan needs to know of the machine. `node` tells this machine from others, for its bridge's address."""

    node: str
    bridge_mac: bytes | None
    ipv6: bool


class Names(Record):
    """Derived from the owner; CHECK takes them from what ADD answered."""

    host_interface: str
    host_mac: bytes
    container_mac: bytes


class Attachment(Record):
    """`lease` is the IPAM's result, empty for a network without addresses; `sandbox` is CNI_NETNS."""

    owner: Owner
    sandbox: str
    conf: NetConf
    facts: Facts
    names: Names
    lease: Result

    def gateway(self, family: int) -> IP | None:
        """The first gateway of the family that the lease names."""
        for ip in self.lease.ips:
            if ip.gateway is not None and ip.address.family == family:
                return ip.gateway
        return None


class Plan(Record):
    """Operations in the order of their application, and the answer that will be true afterwards."""

    operations: tuple[Operation, ...]
    result: Result


def names_of(owner: Owner, mac: bytes | None) -> Names:
    """`mac`: the container's address where the user chose one."""
    return Names(owner.host_interface, owner.host_mac, mac or owner.container_mac)


def plan_attachment(attachment: Attachment) -> Plan:
    """The features' operations in the order that is safe: no packet leaves before its rules are in place."""
    if attachment.conf.is_gateway:
        lease = attachment.lease._replace(ips=address.with_gateways(attachment.lease.ips))
        attachment = attachment._replace(lease=lease)
    operations = [operation for feature in FEATURES for operation in feature.operations(attachment)]
    conf, lease = attachment.conf, attachment.lease
    result = Result(
        interfaces=link.interfaces(attachment) + address.interfaces(attachment),
        ips=tuple([ip._replace(interface=CONTAINER_INDEX) for ip in lease.ips]),
        routes=address.routes(attachment),
        dns=lease.dns if conf.dns is None else conf.dns,
    )
    return Plan(tuple(operations), result)
