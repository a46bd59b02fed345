"""An attachment: its owner, configuration, host and lease."""

from __future__ import annotations

from cni.protocol.owner import mac_of
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.netconf import NetConf
    from cni.plan.policy import PodRecord
    from cni.protocol.address import IP, Net
    from cni.protocol.owner import Owner
    from cni.protocol.result import Result


class Facts(Record):
    """The state of the host that a plan depends on. `node`: the host's identity, for its bridge's address; `group`: for
    DEL, the link group of the host's interface; `pod`: the record for podwired, None where it enforces no policies;
    `isolated`: for that, ports of a bridge exchange no frames.
    """

    node: str
    bridge_mac: bytes | None
    ipv6: bool
    group: int = 0
    pod: PodRecord | None = None
    isolated: bool = False


class Names(Record):
    """Names and MAC addresses: of the host's end by the owner, of the container by its address; for CHECK, ADD's.

    `allowed_mac`: the only source address of frames from the container, if that is checked; tuning, chained behind, may
    set another address. `further_sources`: ADD's addresses beside the lease's that the source check accepts, or None.
    """

    host_interface: str
    host_mac: bytes
    container_mac: bytes
    allowed_mac: bytes = b""
    further_sources: tuple[IP, ...] | None = None


class Attachment(Record):
    """An attachment. `lease` is the IPAM's result, empty for a network without addresses; `sandbox` is CNI_NETNS."""

    owner: Owner
    sandbox: str
    conf: NetConf
    facts: Facts
    names: Names
    lease: Result

    @property
    def addresses(self) -> tuple[Net, ...]:
        return tuple([ip.address for ip in self.lease.ips])

    def gateway(self, family: int) -> IP | None:
        """Returns the first gateway of the family in the lease."""
        for ip in self.lease.ips:
            if ip.gateway is not None and ip.address.family == family:
                return ip.gateway
        return None


def names_of(owner: Owner, mac: bytes | None, lease: Result) -> Names:
    """Returns an attachment's names. `mac`: the one that the user chose; by default derived from the first address.

    So the next container with the address has the same MAC address, and neighbour entries stay valid.
    """
    if mac is None and lease.ips:
        mac = mac_of("container", owner.network, lease.ips[0].address.ip.text)
    return Names(owner.host_interface, owner.host_mac, mac or owner.container_mac)
