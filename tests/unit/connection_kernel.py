"""A kernel's connections: dumps give them with their labels, which messages set as the kernel does."""

from __future__ import annotations

from errno import ENOENT, ENOSPC
from typing import TYPE_CHECKING

from cni.agent.policy.basetable import REVOKED
from cni.kernel import connections
from cni.kernel.conntrack import (
    CTA_FILTER,
    CTA_IP_SRC,
    CTA_TUPLE_IP,
    CTA_TUPLE_ORIG,
    CTA_TUPLE_REPLY,
    IPCTNL_MSG_CT_DELETE,
    IPCTNL_MSG_CT_GET,
)
from cni.kernel.netlink import NLA_F_NESTED, NetlinkError, attribute, attributes, nest, u8
from cni.kernel.nft import NFGENMSG
from cni.protocol.address import parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.kernel.rtnl import Message

CLIENT_PORT = 40000


def way(kind: int, source: str, destination: str, *layer: bytes) -> bytes:
    """Returns a direction of a connection with the attributes of its protocol."""
    ends = parse_ip(source).packed, parse_ip(destination).packed
    first = CTA_IP_SRC[4 if len(ends[0]) == 4 else 6]
    addresses = [attribute(first, ends[0]), attribute(first + 1, ends[1])]
    return nest(
        kind,
        nest(CTA_TUPLE_IP, *addresses, flag=NLA_F_NESTED),
        nest(2, *layer, flag=NLA_F_NESTED),
        flag=NLA_F_NESTED,
    )


def ports(protocol: int, source: int, destination: int) -> tuple[bytes, ...]:
    numbers = [attribute(kind, port.to_bytes(2, "big")) for kind, port in ((2, source), (3, destination))]
    return (u8(1, protocol), *numbers)


class ConnectionKernel:
    """Stands for the host, and for its sockets."""

    def __init__(self, *addresses: str, filters: bool = True) -> None:
        self.filters = filters  # since Linux 5.8
        self.rtnl = self.netfilter = self
        self.addresses = addresses
        self.refusal: NetlinkError | None = None  # to a dump
        self.label_refusal: NetlinkError | None = None
        self.links: set[str] = set()
        self.dumps = self.opened = 0
        self._entries: dict[bytes, bytes] = {}  # by the content of the first direction
        self._labels: dict[bytes, bytes | None] = {}  # None: it is older than the rule for labels

    def add(self, source: str, pod: str, port: int = 80, service: str = "", **more: int | str) -> bytes:
        """Adds a connection to a pod, perhaps by a service; `protocol`, `client` (its port), `old`, `master`.

        Returns its key.
        """
        protocol, client = int(more.get("protocol", 6)), int(more.get("client", CLIENT_PORT))
        first = way(CTA_TUPLE_ORIG, source, service or pod, *ports(protocol, client, port))
        second = way(CTA_TUPLE_REPLY, pod, source, *ports(protocol, port, client))
        key = first[4:]
        master = nest(14, bytes.fromhex(str(more["master"])), flag=NLA_F_NESTED) if "master" in more else b""
        self._entries[key] = NFGENMSG.pack(10 if ":" in source else 2, 0, 0) + first + second + master
        self._labels[key] = None if more.get("old") else bytes(16)
        return key

    def end(self, key: bytes) -> None:
        del self._entries[key], self._labels[key]

    def has(self, key: bytes) -> bool:
        return key in self._entries

    @property
    def revoked(self) -> set[bytes]:
        label = connections.label_bytes(REVOKED)
        return {key for key, labels in self._labels.items() if labels == label}

    # Sockets

    def open(self, *_: object) -> ConnectionKernel:
        self.opened += 1
        return self

    def close(self) -> None:
        self.opened -= 1

    def find(self, name: str) -> object:
        return name if name in self.links else None

    def all_addresses(self) -> list[Info]:
        return [Info(text) for text in self.addresses]

    def parts(self, _: int, payload: bytes) -> Iterator[tuple[int, bytes]]:
        self.dumps += 1
        if self.refusal is not None:
            raise self.refusal
        attrs = attributes(payload, NFGENMSG.size)
        for key in [*self._entries]:
            if key in self._entries and (not self.filters or CTA_FILTER not in attrs or self._matches(key, attrs)):
                yield 0, self._answer(key)
        yield 0, b""

    def _matches(self, key: bytes, wanted: dict[int, bytes]) -> bool:
        entry = attributes(self._entries[key], NFGENMSG.size)
        for kind in {CTA_TUPLE_ORIG, CTA_TUPLE_REPLY} & wanted.keys():
            ends, ours = (attributes(attributes(attrs[kind])[CTA_TUPLE_IP]) for attrs in (wanted, entry))
            if any(ours.get(name) != value for name, value in ends.items()):
                return False
        return True

    def _answer(self, key: bytes) -> bytes:
        labels = self._labels[key]
        return self._entries[key] + (attribute(connections.CTA_LABELS, labels) if labels and any(labels) else b"")

    def ask_each(self, messages: Iterable[Message]) -> list[bytes | NetlinkError]:
        return [self._do(*message) for message in messages]

    def _do(self, kind: int, _: int, payload: bytes) -> bytes | NetlinkError:
        attrs = attributes(payload, NFGENMSG.size)
        key = attrs[CTA_TUPLE_ORIG]
        if key not in self._entries:
            return NetlinkError(ENOENT, "")
        if kind & 0xFF == IPCTNL_MSG_CT_DELETE:
            self.end(key)
            return bytes(4)
        if kind & 0xFF == IPCTNL_MSG_CT_GET:
            return self._answer(key)
        if self.label_refusal is not None:
            return self.label_refusal
        if self._labels[key] is None:
            return NetlinkError(ENOSPC, "")
        self._labels[key] = attrs[connections.CTA_LABELS]
        return bytes(4)


class Info:
    """An address of the node, as rtnetlink tells of it."""

    def __init__(self, text: str) -> None:
        self.address = self
        self.ip = parse_ip(text)
