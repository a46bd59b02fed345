"""pyroute2 as the oracle of netlink: what it understands, would send, and would have the kernel answer."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel.netlink import frame
from cni.protocol.address import mac_text

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

WHY = "pyroute2 is the oracle (pip install pyroute2)"
slot: Any = pytest.importorskip("pyroute2.netlink", reason=WHY).nla_slot
ifinfmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifinfmsg", reason=WHY).ifinfmsg
ifaddrmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifaddrmsg", reason=WHY).ifaddrmsg
rtmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.rtmsg", reason=WHY).rtmsg

Attributes = list[tuple[str, Any]]
SIZES = {"ifinfmsg": 16, "ifaddrmsg": 8, "rtmsg": 12}
ONE, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
AF_BRIDGE, AF_INET, AF_INET6 = 7, 2, 10


def encoded(kind: Any, header: tuple[int, int], fields: dict[str, int], attrs: Attributes) -> bytes:
    """Returns the message that pyroute2 would send."""
    message = kind()
    message["header"] = {"type": header[0], "flags": header[1], "sequence_number": 1, "pid": 0}
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data)


def normal(kind: Any, data: bytes) -> tuple[bytes, list[bytes]]:
    """The headers, and the attributes in the order of their types, since the kernel does not care for another."""
    start = 16 + SIZES[kind.__name__]
    parts, position = [], start
    while position < len(data):
        (length,) = struct.unpack_from("=H", data, position)
        parts.append(data[position : position + length])
        position += (length + 3) & ~3
    return data[:start], sorted(parts, key=lambda part: struct.unpack_from("=HH", part)[1])


def framed(message: Message) -> bytes:
    kind, flags, payload = message
    return frame(kind, flags, 1, payload)


def plain(value: Any) -> Any:
    """A decoded message as lists, tuples and values; pyroute2 keeps attributes in slots that decode when asked."""
    if isinstance(value, slot):
        return (value.name, plain(value.value))
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def linkinfo(kind: str, data: Attributes | None = None, key: str = "INFO") -> tuple[str, Any]:
    attrs: Attributes = [(f"IFLA_{key}_KIND", kind)]
    return ("IFLA_LINKINFO", {"attrs": attrs + ([(f"IFLA_{key}_DATA", {"attrs": data})] if data else [])})


def vlan_spec(*infos: tuple[int, int]) -> tuple[str, Any]:
    listed = [("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": vid}) for flags, vid in infos]
    return ("IFLA_AF_SPEC", {"attrs": listed})


def answer(kind: Any, fields: dict[str, int], attrs: Attributes) -> bytes:
    """The content of what the kernel would answer, as pyroute2 writes it."""
    return encoded(kind, (16, 0), fields, attrs)[16:]


NAME = ("IFLA_IFNAME", "br0")
MAC = ("IFLA_ADDRESS", mac_text(ONE))
LOCAL4: Attributes = [("IFA_LOCAL", "10.1.2.3"), ("IFA_ADDRESS", "10.1.2.3")]
LOCAL6: Attributes = [("IFA_LOCAL", "2001:db8::3"), ("IFA_ADDRESS", "2001:db8::3")]
AT4, AT6 = ({"family": AF_INET, "prefixlen": 24, "index": 7}, {"family": AF_INET6, "prefixlen": 64, "index": 7})
OUT: Attributes = [("RTA_OIF", 7)]
MAIN: Attributes = [("RTA_TABLE", 254), *OUT]


def head(family: int, prefix: int, scope: int, table: int = 254) -> dict[str, int]:
    return {"family": family, "dst_len": prefix, "table": table, "proto": 3, "scope": scope, "type": 1}


def metrics(**values: int) -> tuple[str, Any]:
    return ("RTA_METRICS", {"attrs": [(f"RTAX_{name}", value) for name, value in values.items()]})
