"""One attachment: who, under which configuration, on what host, with which lease."""

from __future__ import annotations

from cni.protocol.owner import mac_of
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.netconf import NetConf
    from cni.protocol.address import IP, Net
    from cni.protocol.owner import Owner
    from cni.protocol.result import Result


class Facts(Record):
    """The state of the host that a plan depends on. `node`: the host's identity, for its bridge's address; `group`: for
    DEL, the link group of the host's interface.
    """

    node: str
    bridge_mac: bytes | None
    ipv6: bool
    group: int = 0


class Names(Record):
    """Derived from the owner; CHECK takes them from what ADD answered. `guarded_mac`: the only one that frames from the
    container may have, where that is checked; tuning, chained behind, may give it another.
    """

    host_interface: str
    host_mac: bytes
    container_mac: bytes
    guarded_mac: bytes = b""


class Attachment(Record):
    """`lease` is the IPAM's result, empty for a network without addresses; `sandbox` is CNI_NETNS."""

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
        """The first gateway of the family that the lease names."""
        for ip in self.lease.ips:
            if ip.gateway is not None and ip.address.family == family:
                return ip.gateway
        return None


def names_of(owner: Owner, mac: bytes | None, lease: Result) -> Names:
    """`mac`: the container's where the user chose one; else it follows from the first leased address.

    So whoever gets the address next has the same MAC address, and what neighbours remember stays true.
    """
    if mac is None and lease.ips:
        mac = mac_of("container", owner.network, lease.ips[0].address.ip.text)
    return Names(owner.host_interface, owner.host_mac, mac or owner.container_mac)
