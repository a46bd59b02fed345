"""NetworkPolicy as the plugin sees it: podwired's maps from addresses to classes, and the pods that ADD hands over.

A new address leads to a pending chain in both maps before its container can send. podwired hears of that from the
kernel, reads in the address's record whose it is, and gives it the classes of its pod: first in maps of new pods, which
the pending chains look up. So nothing is deleted while an ADD waits: a netlink socket closes only when the kernel has
freed what was deleted, after an RCU grace period (net/netfilter/nf_tables_api.c, nft_rcv_nl_event).
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.plan.alias import Alias
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation
    from cni.protocol.address import IP
    from cni.protocol.owner import Owner

TABLE = "podwire-policy"
IN, OUT = "in", "out"  # the directions, as names of chains end
UNCHECKED = "unchecked"  # a file beside the records, where the kernel cannot check sources (ipSpoofCheck)
OPEN = "open"  # a file beside the records, while pods that podwired does not know may do everything
ISOLATED = "isolated"  # a file beside them, while ports of bridges exchange no frames: there is no br_netfilter
POD_NAMESPACE, POD_NAME = "K8S_POD_NAMESPACE", "K8S_POD_NAME"  # of CNI_ARGS, as containerd and CRI-O set them


def map_name(suffix: str, family: int) -> str:
    """Returns the name of the map from pods' addresses to their class for a direction (`in`, `out`)."""
    return f"{'ingress' if suffix == IN else 'egress'}{family}"


def new_map(name: str) -> str:
    """Returns the name of the map beside this one: from addresses that are still pending to the classes that podwired
    has given them.
    """
    return f"new-{name}"


def new_map_name(suffix: str, family: int) -> str:
    return new_map(map_name(suffix, family))


def pending_chain(suffix: str) -> str:
    """Returns the name of the chain for a direction of pods that podwired does not know yet."""
    return f"pending-{suffix}"


class PodRecord(Record):
    """The holder of an address: the label of its attachment, and the pod. Where the runtime names no pod, `namespace`
    is empty and `name` the container's ID.
    """

    label: str
    namespace: str
    name: str

    @property
    def data(self) -> bytes:
        return "\n".join(self).encode("utf-8", "surrogateescape")


def record_of(owner: Owner, args: Mapping[str, str]) -> PodRecord:
    """Returns the record of an attachment; `args` are CNI_ARGS."""
    name = args.get(POD_NAME, "")
    return PodRecord(owner.label, args.get(POD_NAMESPACE, "") if name else "", name or owner.container_id)


def parse_record(data: bytes) -> PodRecord | None:
    """Returns None for what ADD did not write, or not to its end."""
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    return PodRecord(*lines) if len(lines) == len(PodRecord._fields) else None


class Pending(Record):
    """The record of a pod's addresses, which are pending from then on; nothing where podwired enforces no policies."""

    ips: tuple[IP, ...]
    record: PodRecord

    def describe(self) -> str:
        elements = [
            f"add element inet {TABLE} {map_name(suffix, ip.family)} {{ {ip.text} : goto {pending_chain(suffix)} }}"
            for ip in self.ips
            for suffix in (IN, OUT)
        ]
        return f"nft '{'; '.join(elements)}'"


class AwaitClass(Record):
    """A wait, of so many seconds at most, until podwired has given these addresses their class."""

    ips: tuple[IP, ...]
    seconds: int

    def describe(self) -> str:
        return f"wait up to {self.seconds} s until {', '.join([ip.text for ip in self.ips])} are no longer pending"


class PolicyPort(Record):
    """A port of a bridge that is isolated while podwired asks for it, whichever of the two has begun first.

    podwired may begin or end this after ADD has looked and before the port is on its bridge: then podwired's list of
    ports lacks this one. `isolated` and `alias` are what the port was made with.
    """

    host_interface: str
    hairpin: bool
    isolated: bool
    alias: Alias

    def describe(self) -> str:
        isolated = "on" if self.isolated else "off"
        return f"bridge link set dev {self.host_interface} isolated {isolated}, or as podwired asks now"


def pending(attachment: Attachment, record: PodRecord) -> tuple[Operation, ...]:
    """Returns what comes before all others, so that it is undone and released after them."""
    return (Pending(_ips(attachment), record),)


def await_class(attachment: Attachment) -> tuple[Operation, ...]:
    """Returns what comes after all others: podwired works meanwhile."""
    seconds = attachment.conf.policy_wait
    return (AwaitClass(_ips(attachment), seconds),) if seconds else ()


def _ips(attachment: Attachment) -> tuple[IP, ...]:
    return tuple([address.ip for address in attachment.addresses])
