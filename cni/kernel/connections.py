"""ctnetlink messages of connections of any protocol: those that an address has a part in, and their labels.

A connection is read as its destination sees it, behind a translation of the destination (DNAT): from the source of its
first packet to the source of the replies. As in cni.kernel.nft, nothing here opens a socket.
"""

from __future__ import annotations

from cni.kernel.conntrack import (
    CTA_FILTER,
    CTA_FILTER_ORIG_FLAGS,
    CTA_FILTER_REPLY_FLAGS,
    CTA_IP_SRC,
    CTA_PROTO_NUM,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_PROTO,
    CTA_TUPLE_REPLY,
    CTA_ZONE,
    FLAGS,
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
    NFNL_SUBSYS_CTNETLINK,
    PORT,
)
from cni.kernel.netlink import ATTRIBUTE, NLA_F_NESTED, NLM_F_ACK, Malformed, attribute, attributes, nest
from cni.kernel.nft import NFGENMSG
from cni.kernel.nft_fields import FIELDS, encoded
from cni.protocol.address import IPV4_BYTES, IPV6_BYTES, address_family
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

IPCTNL_MSG_CT_NEW = 0
CTA_TUPLE_MASTER, CTA_LABELS, CTA_LABELS_MASK = 14, 22, 23
CTA_PROTO_SRC_PORT = 2
FILTER_IP_SRC = 1 << 0
SIZES = {IPV4_BYTES: 4, IPV6_BYTES: 6}  # the family of an address by its length
PORTS_BYTES = 3 * 8  # of the attributes of a protocol with ports


class Connection(Record):
    """`port` is the destination's, 0 where the protocol has none; `labels` may be empty. `original` is the tuple of its
    first packet, by which the kernel finds it, and `master` that of the connection which a helper expected it of.
    """

    source: bytes
    destination: bytes
    protocol: int
    port: int
    labels: bytes
    original: bytes
    master: bytes
    zone: bytes

    @property
    def judged(self) -> tuple[bytes, bytes, int, int]:
        """Source and destination, protocol and port: what policies are about."""
        return self.source, self.destination, self.protocol, self.port

    def has_label(self, bit: int) -> bool:
        return any(map(int.__and__, self.labels, label_bytes(bit)))


def label_bytes(bit: int) -> bytes:
    """Returns the labels of a connection that has this one alone."""
    return encoded(FIELDS["ct label"], bit)


def all_connections() -> tuple[int, bytes]:
    """Returns a dump of all connections, of both families."""
    return _kind(IPCTNL_MSG_CT_GET), NFGENMSG.pack(0, 0, 0)


def connections_of(address: bytes) -> list[tuple[int, bytes]]:
    """Returns the dumps of the connections from an address, and of those to it; before Linux 5.8 they give all."""
    family = SIZES[len(address)]
    source = nest(CTA_TUPLE_IP, attribute(CTA_IP_SRC[family], address), flag=NLA_F_NESTED)
    dumps = []
    for direction, flags in ((CTA_TUPLE_ORIG, (FILTER_IP_SRC, 0)), (CTA_TUPLE_REPLY, (0, FILTER_IP_SRC))):
        compared = [
            attribute(kind, FLAGS.pack(flag))
            for kind, flag in zip((CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS), flags, strict=True)
        ]
        wanted = nest(direction, source, flag=NLA_F_NESTED) + nest(CTA_FILTER, *compared, flag=NLA_F_NESTED)
        dumps.append((_kind(IPCTNL_MSG_CT_GET), _head(address) + wanted))
    return dumps


def ends_of(answer: bytes) -> tuple[bytes, bytes]:
    """Returns source and destination, by their place in the messages of usual connections: of 100,000, few are read
    further. Raises Malformed.
    """
    for original, reply, size, second in _USUAL:
        if answer[4:16] == original and answer[second : second + 12] == reply:
            return answer[16 : 16 + size], answer[second + 12 : second + 12 + size]
    attrs = attributes(answer, NFGENMSG.size)
    return _source_of(attrs.get(CTA_TUPLE_ORIG, b"")), _source_of(attrs.get(CTA_TUPLE_REPLY, b""))


def parse_connection(answer: bytes) -> Connection:
    """Raises Malformed."""
    attrs = attributes(answer, NFGENMSG.size)
    original, reply = attrs.get(CTA_TUPLE_ORIG, b""), attrs.get(CTA_TUPLE_REPLY, b"")
    source, destination = _source_of(original), _source_of(reply)
    if len(source) != len(destination):
        raise Malformed("a connection between two families")
    layer = attributes(attributes(reply).get(CTA_TUPLE_PROTO, b""))
    protocol, port = layer.get(CTA_PROTO_NUM, b""), layer.get(CTA_PROTO_SRC_PORT, bytes(PORT.size))
    if len(protocol) != 1 or len(port) != PORT.size:
        raise Malformed("a protocol or port of another length")
    return Connection(
        source=source,
        destination=destination,
        protocol=protocol[0],
        port=PORT.unpack(port)[0],
        labels=attrs.get(CTA_LABELS, b""),
        original=original,
        master=attrs.get(CTA_TUPLE_MASTER, b""),
        zone=attribute(CTA_ZONE, attrs[CTA_ZONE]) if CTA_ZONE in attrs else b"",
    )


def get_master(connection: Connection) -> Message:
    """Returns a message that is answered by NetlinkError (ENOENT) if there is no such connection any more."""
    return _kind(IPCTNL_MSG_CT_GET), 0, _named(connection, connection.master)


def set_label(connection: Connection, bit: int, *, on: bool) -> Message:
    """Returns a message that is answered by NetlinkError: ENOENT if the connection has ended, ENOSPC if it is older
    than the rule by which connections have labels.
    """
    label = label_bytes(bit)
    labels = attribute(CTA_LABELS, label if on else bytes(len(label))) + attribute(CTA_LABELS_MASK, label)
    return _kind(IPCTNL_MSG_CT_NEW), NLM_F_ACK, _named(connection, connection.original) + labels


def delete_connection(connection: Connection) -> Message:
    """Returns a message that is answered by NetlinkError (ENOENT) if the connection has ended."""
    return _kind(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, _named(connection, connection.original)


def _kind(message: int) -> int:
    return NFNL_SUBSYS_CTNETLINK << 8 | message


def _head(address: bytes) -> bytes:
    return NFGENMSG.pack(address_family(SIZES[len(address)]), 0, 0)


def _named(connection: Connection, original: bytes) -> bytes:
    return _head(connection.source) + attribute(CTA_TUPLE_ORIG | NLA_F_NESTED, original) + connection.zone


def _source_of(direction: bytes) -> bytes:
    """Returns the source address of a direction. Raises Malformed."""
    ends = attributes(attributes(direction).get(CTA_TUPLE_IP, b""))
    for family, kind in CTA_IP_SRC.items():
        if SIZES.get(len(ends.get(kind, b""))) == family:
            return ends[kind]
    raise Malformed("a connection without an address")


def _usual(size: int) -> tuple[bytes, bytes, int, int]:
    """Returns how the directions of a connection with ports begin, the length of its addresses, and where the second
    direction begins.
    """
    header, source = ATTRIBUTE.size, ATTRIBUTE.size + size
    ends = header + 2 * source
    length = header + ends + header + PORTS_BYTES
    begin = ATTRIBUTE.pack(ends, CTA_TUPLE_IP | NLA_F_NESTED) + ATTRIBUTE.pack(source, CTA_IP_SRC[SIZES[size]])
    first, second = [ATTRIBUTE.pack(length, kind | NLA_F_NESTED) + begin for kind in (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY)]
    return first, second, size, NFGENMSG.size + length


_USUAL = (_usual(IPV4_BYTES), _usual(IPV6_BYTES))
