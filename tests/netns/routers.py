"""A router for the tests: it advertises itself out of an interface, and tells when a link has heard it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.machine import until
from tests.netns.state import shown

if TYPE_CHECKING:
    from tests.machine import Machine, Pod

PREFIX = "2001:db8:bad:"
# One frame, RFC 4861: whoever hears it has a default route for half an hour, and an address of the prefix.
_ADVERTISE = """
import socket, struct, sys
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind((sys.argv[1], 0))
mac = out.getsockname()[4]
source, group = (socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::dead", "ff02::1"))
prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + socket.inet_pton(socket.AF_INET6, sys.argv[2])
def message(checksum):
    return struct.pack("!BBHBBHII", 134, 0, checksum, 64, 0, 1800, 0, 0) + b"\\1\\1" + mac + prefix
summed = source + group + struct.pack("!II", len(message(0)), 58) + message(0)
total = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
total = (total >> 16) + (total & 0xFFFF)
body = message(~(total + (total >> 16)) & 0xFFFF)
header = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + group
out.send(bytes.fromhex("333300000001") + mac + b"\\x86\\xdd" + header + body)
"""


def advertise(router: Machine | Pod, interface: str, listener: Machine | Pod, heard_by: str) -> None:
    """Advertises a router out of the interface until the listener's kernel has counted it."""
    counter = f"/proc/net/dev_snmp6/{heard_by}"

    def count() -> int:
        lines = listener.run("cat", counter).stdout.splitlines()
        return int(dict(map(str.split, lines))["Icmp6InRouterAdvertisements"])

    before = count()

    def is_heard() -> bool:
        router.run(sys.executable, "-c", _ADVERTISE, interface, f"{PREFIX}:")
        return count() > before

    until(is_heard, f"{heard_by} to hear of a router")


def advertised(where: Machine | Pod, interface: str) -> tuple[int, int]:
    """Returns the number of default routes, and that of addresses of the advertised prefix."""
    defaults = shown(where, "ip", "-j", "-6", "route", "show", "default", "dev", interface)
    addresses = shown(where, "ip", "-j", "-6", "address", "show", "dev", interface)
    locals_ = [info["local"] for link in addresses for info in link.get("addr_info", [])]
    return len(defaults), len([address for address in locals_ if address.startswith(PREFIX)])
