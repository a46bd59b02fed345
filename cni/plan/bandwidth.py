"""The bandwidth feature. Ingress: tbf on the host interface. Egress: redirected to an ifb with its own tbf."""

from __future__ import annotations

from cni.protocol.address import mac_text
from cni.protocol.owner import mac_of
from cni.protocol.record import Record
from cni.protocol.result import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.bandwidth import Bandwidth, Rate
    from cni.plan.operations import Operation
    from cni.protocol.owner import Owner

LATENCY_MS = 25  # how long a packet may wait for its tokens, beyond the burst: the reference's


class TokenBucket(Record):
    """A limit of packets that the interface sends (tc-tbf(8)): bytes a second, bytes; deleted with the interface."""

    interface: str
    rate: int
    burst: int

    @property
    def limit(self) -> int:
        """The bytes that may wait."""
        return min(self.rate * LATENCY_MS // 1000 + self.burst, (1 << 32) - 1)

    def describe(self) -> str:
        numbers = f"rate {self.rate}bps burst {self.burst} limit {self.limit}"
        return f"tc qdisc add dev {self.interface} root handle 1: tbf {numbers}"


class Ifb(Record):
    """An intermediate functional block: packets from the container are redirected to it, where a qdisc limits them.

    `paired`: it is deleted together with the host's interface, in one step.
    """

    name: str
    mac: bytes
    host_interface: str
    label: str
    paired: bool

    def describe(self) -> str:
        return f"ip link add {self.name} up address {mac_text(self.mac)} txqueuelen 0 type ifb"


class MirredRedirect(Record):
    """A filter that redirects all packets received on the host's interface to the ifb; deleted with the interface."""

    host_interface: str
    ifb: str

    def describe(self) -> str:
        return (
            f"tc qdisc add dev {self.host_interface} ingress && tc filter add dev {self.host_interface} parent ffff:"
            f" u32 match u32 0 0 action mirred egress redirect dev {self.ifb}"
        )


def ifb_name(owner: Owner) -> str:
    return f"ifb{owner.key[:12]}"


def ifb_mac(owner: Owner) -> bytes:
    return mac_of("ifb", *owner)


def interfaces(conf: Bandwidth, owner: Owner) -> tuple[Interface, ...]:
    """Returns the interfaces that the feature adds to the result."""
    return (Interface(ifb_name(owner), mac_text(ifb_mac(owner))),) if conf.egress else ()


def operations(conf: Bandwidth, owner: Owner, host_interface: str, paired: bool) -> tuple[Operation, ...]:
    operations: list[Operation] = []
    if conf.ingress:
        operations.append(_bucket(host_interface, conf.ingress))
    if conf.egress:
        name = ifb_name(owner)
        operations.append(Ifb(name, ifb_mac(owner), host_interface, owner.label, paired))
        operations.append(_bucket(name, conf.egress))
        operations.append(MirredRedirect(host_interface, name))
    return tuple(operations)


def _bucket(interface: str, rate: Rate) -> TokenBucket:
    return TokenBucket(interface, rate.rate, rate.burst)
