"""IP addresses and networks as integers with a family.

The standard library's ipaddress costs 3 to 7 ms at start; inet_pton and integers do the same work. Texts follow Go's
net.IP, since lease files are named by them: RFC 5952, and an IPv4-mapped IPv6 address is an IPv4 address.
"""

from __future__ import annotations

from cni.protocol.record import Record

try:
    from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
except ImportError:
    from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

IPV6_MTU = 1280  # RFC 8200: the kernel has no IPv6 on an interface with less
MAPPED = b"\0" * 10 + b"\xff\xff"


class IP(Record):
    """One address: family 4 or 6, value as an unsigned integer."""

    family: int
    value: int

    @property
    def bits(self) -> int:
        return 32 if self.family == 4 else 128

    @property
    def packed(self) -> bytes:
        """Network byte order, 4 or 16 bytes."""
        return self.value.to_bytes(self.bits // 8, "big")

    @property
    def is_link_local(self) -> bool:
        """True for fe80::/10, of which every IPv6 interface has an address of the kernel's own."""
        return self.family == 6 and self.value >> 118 == 0xFE80 >> 6

    @property
    def text(self) -> str:
        if self.family == 4:
            return inet_ntop(AF_INET, self.packed)
        if 0xFFFF < self.value < 1 << 32:  # glibc writes ::1.2.3.4 here, Go does not
            return f"::{self.value >> 16:x}:{self.value & 0xFFFF:x}"
        return inet_ntop(AF_INET6, self.packed)


class Net(Record):
    """An address with its prefix length; host bits are kept, as in `10.1.2.3/24`."""

    ip: IP
    prefix: int

    @property
    def text(self) -> str:
        return f"{self.ip.text}/{self.prefix}"

    @property
    def family(self) -> int:
        return self.ip.family

    @property
    def _host_mask(self) -> int:
        return (1 << (self.ip.bits - self.prefix)) - 1

    @property
    def network(self) -> Net:
        return Net(IP(self.family, self.ip.value & ~self._host_mask), self.prefix)

    @property
    def last(self) -> IP:
        """The highest address: in IPv4 the broadcast address."""
        return IP(self.family, self.ip.value | self._host_mask)

    @property
    def host(self) -> Net:
        """The address alone: /32 or /128."""
        return Net(self.ip, self.ip.bits)

    def contains(self, ip: IP) -> bool:
        return ip.family == self.family and ip.value | self._host_mask == self.last.value


def parse_ip(text: str) -> IP:
    """Raises ValueError."""
    try:
        if ":" not in text:
            return IP(4, int.from_bytes(inet_pton(AF_INET, text), "big"))
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not an IP address") from None
    if packed.startswith(MAPPED):
        return IP(4, int.from_bytes(packed[12:], "big"))
    return IP(6, int.from_bytes(packed, "big"))


def parse_net(text: str) -> Net:
    """`ADDRESS/PREFIX`. Raises ValueError."""
    address, slash, length = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} has no prefix length (as in {text}/24)")
    ip = parse_ip(address)
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= ip.bits):
        raise ValueError(f"{text!r} has no valid prefix length")
    return Net(ip, int(length))


def parse_mac(text: str) -> bytes:
    """Six bytes of an Ethernet address, written as Go reads it: 0a:58:..., 0A-58-..., 0a58.0a01.0203.

    Raises ValueError.
    """
    parts, size = (text.split("."), 4) if "." in text else (text.replace("-", ":").split(":"), 2)
    digits = "0123456789abcdefABCDEF"
    if len(parts) * size != 12 or any(len(part) != size or part.strip(digits) for part in parts):
        raise ValueError(f"{text!r} is not a MAC address (as in 0a:58:0a:01:02:03)")
    mac = bytes.fromhex("".join(parts))
    if mac[0] & 1 or not any(mac):
        raise ValueError(f"{text!r} is a group or null address, no interface can have it")
    return mac


def mac_text(mac: bytes) -> str:
    return mac.hex(":")
