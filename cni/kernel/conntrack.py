"""Connections that the kernel remembers (ctnetlink; kernel include/uapi/linux/netfilter/nfnetlink_conntrack.h).

A UDP flow has no end that the kernel would see: as long as packets come, it keeps to the way that it took first, past
a host port that was opened later, or through one that is closed.
"""

from __future__ import annotations

from _struct import Struct
from errno import EINVAL, ENOENT, EOPNOTSUPP

from cni.kernel import rtinfo, rtnl
from cni.kernel.netlink import NLA_F_NESTED, NLM_F_ACK, Refused, attribute, attributes, nest, u8
from cni.kernel.nfnl import NFGENMSG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.config.ports import PortMapping
    from cni.kernel.machine import Machine
    from cni.kernel.rtnl import Message
    from cni.spec.address import IP

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
IPV4_BYTES = 4
PORT, FLAGS = Struct(">H"), Struct("=I")
LACKING = (EINVAL, EOPNOTSUPP)  # the kernel has no nf_conntrack_netlink: nothing can be forgotten


def forget_unmapped(machine: Machine, mapping: PortMapping, family: int) -> None:
    """What went to this port of the host before it led to a container; traffic that is only routed is left alone."""
    local = {mapping.host_ip} if mapping.host_ip is not None else _local(machine)
    packed = {one.packed for one in local}
    _forget(machine, family, mapping.host_port, lambda to, _answers_from: to in packed)


def _local(machine: Machine) -> set[IP]:
    return {rtinfo.parse_address(answer).address.ip for answer in machine.route.dump(*rtnl.addresses_of(0))}


def forget_mapped(machine: Machine, ip: bytes, host_port: int) -> None:
    """What went through this port of the host to the container's address."""
    family = 4 if len(ip) == IPV4_BYTES else 6
    _forget(machine, family, host_port, lambda _to, answers_from: answers_from == ip)


def _forget(machine: Machine, family: int, host_port: int, doomed: Callable[[bytes, bytes], bool]) -> None:
    """Of the flows to the host port, those that are doomed by whom they were sent to, and who answers them."""
    port = PORT.pack(host_port)
    try:
        answers = machine.nft.dump(*_flows_to(family, port))
    except Refused as refused:
        if refused.errno in LACKING:
            return
        raise
    for answer in answers:
        found = attributes(answer, NFGENMSG.size)
        original, reply = (attributes(found.get(kind, b"")) for kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY))
        protocol = attributes(original.get(CTA_TUPLE_PROTO, b""))
        # An old kernel does not filter (before 5.8).
        if protocol.get(CTA_PROTO_NUM) != bytes([UDP]) or protocol.get(CTA_PROTO_DST_PORT) != port:
            continue
        to = attributes(original.get(CTA_TUPLE_IP, b"")).get(CTA_IP_DST[family], b"")
        answers_from = attributes(reply.get(CTA_TUPLE_IP, b"")).get(CTA_IP_SRC[family], b"")
        if doomed(to, answers_from):
            _delete(machine, family, found)


def _flows_to(family: int, port: bytes) -> tuple[int, bytes]:
    flags = FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT
    protocol = nest(CTA_TUPLE_PROTO, u8(CTA_PROTO_NUM, UDP), attribute(CTA_PROTO_DST_PORT, port), flag=NLA_F_NESTED)
    wanted = nest(
        CTA_FILTER,
        attribute(CTA_FILTER_ORIG_FLAGS, FLAGS.pack(flags)),
        attribute(CTA_FILTER_REPLY_FLAGS, FLAGS.pack(0)),
        flag=NLA_F_NESTED,
    )
    return _kind(IPCTNL_MSG_CT_GET), _head(family) + nest(CTA_TUPLE_ORIG, protocol, flag=NLA_F_NESTED) + wanted


def _delete(machine: Machine, family: int, flow: dict[int, bytes]) -> None:
    """By the flow's own words; one that has ended meanwhile is success."""
    payload = _head(family) + attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, flow[CTA_TUPLE_ORIG])
    for kind in (CTA_ID, CTA_ZONE):
        if kind in flow:
            payload += attribute(kind, flow[kind])
    message: Message = (_kind(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, payload)
    try:
        machine.nft.request(*message)
    except Refused as refused:
        if refused.errno != ENOENT:
            raise


def _kind(message: int) -> int:
    return NFNL_SUBSYS_CTNETLINK << 8 | message


def _head(family: int) -> bytes:
    return NFGENMSG.pack(rtnl.AF_INET if family == 4 else rtnl.AF_INET6, 0, 0)
