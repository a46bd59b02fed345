"""Connections that the kernel remembers (ctnetlink; kernel include/uapi/linux/netfilter/nfnetlink_conntrack.h).

A UDP flow has no end that the kernel would see: as long as packets come, it keeps to the way that it took first, past
a host port that was opened later, or through one that is closed.
"""

from __future__ import annotations

from _struct import Struct
from errno import EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT

from cni.effects import Effect, not_released, nothing_differs
from cni.kernel.netlink import NLA_F_NESTED, NLM_F_ACK, NetlinkError, attribute, attributes, nest, u8
from cni.kernel.nft import NFGENMSG
from cni.protocol.address import IPV4_BYTES, IPV6_BYTES, address_family
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.rtnl import Message
    from cni.plan.portmap import MappedFlows, UnmappedFlows

NFNL_SUBSYS_CTNETLINK = 1
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1, 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID, CTA_ZONE, CTA_FILTER = 1, 2, 12, 18, 25
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_SRC = {4: 1, 6: 3}
CTA_IP_DST = {4: 2, 6: 4}
CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 1, 3
CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 1, 2
FILTER_PROTO_NUM, FILTER_PROTO_DST_PORT = 1 << 3, 1 << 5
UDP = 17
PORT, FLAGS = Struct(">H"), Struct("=I")
LACKING = (EINVAL, EOPNOTSUPP, EPROTONOSUPPORT)  # the kernel has no nf_conntrack_netlink: nothing can be forgotten


class Flow(Record):
    """A UDP connection: to which port and address it was sent, who answers it, and the attributes that name it."""

    port: bytes
    to: bytes
    answers_from: bytes
    names: bytes


def apply_unmapped(host: Host, op: UnmappedFlows, journal: Journal) -> None:
    """Forgets UDP flows to these host ports from before they led to a container; flows that are only routed are kept.

    There is no way back, and none is needed: who speaks on is remembered anew.
    """
    anywhere = _local(host) if any(mapping.host_ip is None for mapping in op.mappings) else set()
    addresses: dict[bytes, set[bytes]] = {}
    for mapping in op.mappings:
        to = anywhere if mapping.host_ip is None else {mapping.host_ip.packed}
        addresses.setdefault(PORT.pack(mapping.host_port), set()).update(to)
    _forget(host, op.ip.family, set(addresses), lambda flow: flow.to in addresses[flow.port])


def _local(host: Host) -> set[bytes]:
    return {one.address.ip.packed for one in host.rtnl.all_addresses()}


def apply_mapped(host: Host, op: MappedFlows, journal: Journal) -> None:
    """There are none yet."""


def release_mapped(host: Host, op: MappedFlows) -> None:
    """Forgets UDP flows through these host ports to the container; the ports are released already."""
    forget_mapped(host, {(op.ip.packed, mapping.host_port) for mapping in op.mappings})


def forget_mapped(host: Host, targets: set[tuple[bytes, int]]) -> None:
    """Forgets UDP flows to container addresses through host ports, in one pass for each family."""
    for family, size in ((4, IPV4_BYTES), (6, IPV6_BYTES)):
        pairs = {(ip, PORT.pack(port)) for ip, port in targets if len(ip) == size}
        if pairs:
            _forget(host, family, {port for _, port in pairs}, _Through(pairs).has)


class _Through:
    def __init__(self, pairs: set[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def has(self, flow: Flow) -> bool:
        return (flow.answers_from, flow.port) in self._pairs


def _forget(host: Host, family: int, ports: set[bytes], is_stale: Callable[[Flow], bool]) -> None:
    """Deletes the is_stale ones of the flows to these host ports."""
    try:
        answers = host.nft.dump(*_flows_to(family, ports))
    except (NetlinkError, OSError) as error:
        if error.errno in LACKING:
            return
        raise
    for answer in answers:
        flow = flow_of(answer, family)
        if flow is not None and flow.port in ports and is_stale(flow):
            _delete(host, family, flow)


def flow_of(answer: bytes, family: int) -> Flow | None:
    """None for other protocols, which an old kernel does not leave out (before 5.8). Raises Malformed."""
    found = attributes(answer, NFGENMSG.size)
    original, reply = (attributes(found.get(kind, b"")) for kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY))
    protocol = attributes(original.get(CTA_TUPLE_PROTO, b""))
    if protocol.get(CTA_PROTO_NUM) != bytes([UDP]):
        return None
    names = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, found[CTA_TUPLE_ORIG])
    names += b"".join([attribute(kind, found[kind]) for kind in (CTA_ID, CTA_ZONE) if kind in found])
    return Flow(
        port=protocol.get(CTA_PROTO_DST_PORT, b""),
        to=attributes(original.get(CTA_TUPLE_IP, b"")).get(CTA_IP_DST[family], b""),
        answers_from=attributes(reply.get(CTA_TUPLE_IP, b"")).get(CTA_IP_SRC[family], b""),
        names=names,
    )


def _flows_to(family: int, ports: set[bytes]) -> tuple[int, bytes]:
    """A dump of all UDP flows, or where there is but one port of those to it; the kernel filters."""
    flags, wanted = FILTER_PROTO_NUM, [u8(CTA_PROTO_NUM, UDP)]
    if len(ports) == 1:
        flags |= FILTER_PROTO_DST_PORT
        wanted += [attribute(CTA_PROTO_DST_PORT, port) for port in ports]
    compared = nest(
        CTA_FILTER,
        attribute(CTA_FILTER_ORIG_FLAGS, FLAGS.pack(flags)),
        attribute(CTA_FILTER_REPLY_FLAGS, FLAGS.pack(0)),
        flag=NLA_F_NESTED,
    )
    original = nest(CTA_TUPLE_ORIG, nest(CTA_TUPLE_PROTO, *wanted, flag=NLA_F_NESTED), flag=NLA_F_NESTED)
    return _kind(IPCTNL_MSG_CT_GET), _head(family) + original + compared


def _delete(host: Host, family: int, flow: Flow) -> None:
    """By the flow's own words; one that has ended meanwhile is success."""
    message: Message = (_kind(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, _head(family) + flow.names)
    try:
        host.nft.request(*message)
    except NetlinkError as refused:
        if refused.errno != ENOENT:
            raise


def _kind(message: int) -> int:
    return NFNL_SUBSYS_CTNETLINK << 8 | message


def _head(family: int) -> bytes:
    return NFGENMSG.pack(address_family(family), 0, 0)


EFFECTS = {
    "UnmappedFlows": Effect(apply_unmapped, not_released, nothing_differs),
    "MappedFlows": Effect(apply_mapped, release_mapped, nothing_differs),
}
