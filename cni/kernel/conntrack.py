"""ctnetlink messages of UDP connections (kernel include/uapi/linux/netfilter/nfnetlink_conntrack.h), built and read.

As in cni.kernel.nft, nothing here opens a socket.
"""

from __future__ import annotations

from _struct import Struct
from errno import EINVAL, EOPNOTSUPP, EPROTONOSUPPORT

from cni.kernel.netlink import NLA_F_NESTED, NLM_F_ACK, attribute, attributes, nest, u8
from cni.kernel.nft import NFGENMSG
from cni.protocol.address import address_family
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

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
LACKING = (EINVAL, EOPNOTSUPP, EPROTONOSUPPORT)  # without nf_conntrack_netlink


class Flow(Record):
    """A UDP connection: the destination address and port of its first packet, and the source address of the replies,
    all in network byte order; `identity`: the attributes by which the kernel finds it.
    """

    destination: bytes
    port: bytes
    reply_source: bytes
    identity: bytes


def flows_to(family: int, ports: set[bytes]) -> tuple[int, bytes]:
    """Returns a dump of all UDP flows, or of those to the port if `ports` has one alone; the kernel filters."""
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


def parse_flow(answer: bytes, family: int) -> Flow | None:
    """Returns None for other protocols, which a kernel before 5.8 does not filter out. Raises Malformed."""
    attrs = attributes(answer, NFGENMSG.size)
    original, reply = (attributes(attrs.get(kind, b"")) for kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY))
    protocol = attributes(original.get(CTA_TUPLE_PROTO, b""))
    if protocol.get(CTA_PROTO_NUM) != bytes([UDP]):
        return None
    identity = attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, attrs[CTA_TUPLE_ORIG])
    identity += b"".join([attribute(kind, attrs[kind]) for kind in (CTA_ID, CTA_ZONE) if kind in attrs])
    return Flow(
        destination=attributes(original.get(CTA_TUPLE_IP, b"")).get(CTA_IP_DST[family], b""),
        port=protocol.get(CTA_PROTO_DST_PORT, b""),
        reply_source=attributes(reply.get(CTA_TUPLE_IP, b"")).get(CTA_IP_SRC[family], b""),
        identity=identity,
    )


def delete_flow(family: int, flow: Flow) -> Message:
    """Returns a message that is answered by NetlinkError (ENOENT) if the flow has ended."""
    return _kind(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, _head(family) + flow.identity


def _kind(message: int) -> int:
    return NFNL_SUBSYS_CTNETLINK << 8 | message


def _head(family: int) -> bytes:
    return NFGENMSG.pack(address_family(family), 0, 0)
