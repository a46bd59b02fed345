"""IP addresses and networks as integers with a family.

The standard library's ipaddress costs 3 to 7 ms at start; inet_pton and integers do the same work. Texts are those of
Go's net.IP, because lease files are named by them: RFC 5952, and an IPv4-mapped IPv6 address is an IPv4 address.
"""

from __future__ import annotations

from cni.protocol.record import Record

try:
    from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
except ImportError:
    from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

IPV4_BYTES, IPV6_BYTES = 4, 16
MAPPED = b"\0" * 10 + b"\xff\xff"  # RFC 4291, section 2.5.5.2
MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}  # RFC 5771; RFC 4291, section 2.7
IPV6_MTU = 1280  # RFC 8200: the kernel has no IPv6 on an interface with less
MTU_LIMIT = 65535  # kernel drivers/net/veth.c: ETH_MAX_MTU
PORT_LIMIT = 65535  # TCP, UDP and SCTP


def address_family(family: int) -> int:
    """Returns AF_INET for 4, AF_INET6 for 6 (socket(7))."""
    return AF_INET if family == 4 else AF_INET6


def ip_family(address_family: int) -> int:
    """Returns 4 for AF_INET, 6 for AF_INET6."""
    return 4 if address_family == AF_INET else 6


class IP(Record):
    """An address: family 4 or 6, value as an unsigned integer."""

    family: int
    value: int

    @classmethod
    def from_packed(cls, packed: bytes) -> IP:
        """Returns the address of 4 or 16 bytes in network byte order. Raises ValueError."""
        if len(packed) not in (IPV4_BYTES, IPV6_BYTES):
            raise ValueError(f"an IP address of {len(packed)} bytes")
        return cls(4 if len(packed) == IPV4_BYTES else 6, int.from_bytes(packed, "big"))

    @property
    def bits(self) -> int:
        return 32 if self.family == 4 else 128

    @property
    def packed(self) -> bytes:
        """Network byte order, 4 or 16 bytes."""
        return self.value.to_bytes(self.bits // 8, "big")

    @property
    def is_loopback(self) -> bool:
        """True for 127.0.0.0/8 and ::1."""
        return self.value >> 24 == 127 if self.family == 4 else self.value == 1

    @property
    def is_link_local(self) -> bool:
        """True for 169.254.0.0/16 (RFC 3927) and fe80::/10 (RFC 4291)."""
        return self.is_ipv6_link_local or (self.family == 4 and self.value >> 16 == 0xA9FE)

    @property
    def is_ipv6_link_local(self) -> bool:
        """True for fe80::/10: the kernel adds such an address to every IPv6 interface."""
        return self.family == 6 and self.value >> 118 == 0xFE80 >> 6

    @property
    def text(self) -> str:
        if self.family == 4:
            return inet_ntop(AF_INET, self.value.to_bytes(IPV4_BYTES, "big"))
        if 0xFFFF < self.value < 1 << 32:  # glibc writes ::1.2.3.4 here, Go does not
            return f"::{self.value >> 16:x}:{self.value & 0xFFFF:x}"
        return inet_ntop(AF_INET6, self.packed)


class Net(Record):
    """An address with its prefix length; host bits are kept (`10.1.2.3/24`)."""

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
    def is_network(self) -> bool:
        """True if there are no host bits."""
        return not self.ip.value & self._host_mask

    @property
    def last(self) -> IP:
        """The highest address: in IPv4 the broadcast address."""
        return IP(self.family, self.ip.value | self._host_mask)

    @property
    def host(self) -> Net:
        """The address alone: /32 or /128."""
        return Net(self.ip, self.ip.bits)

    def contains(self, ip: IP) -> bool:
        own = self.ip
        return ip.family == own.family and not (ip.value ^ own.value) >> (own.bits - self.prefix)


def parse_ip(text: str) -> IP:
    """Returns the address. Raises ValueError."""
    try:
        if ":" not in text:
            return IP.from_packed(inet_pton(AF_INET, text))
        packed = inet_pton(AF_INET6, text)
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is not an IP address") from None
    if packed.startswith(MAPPED):
        return IP.from_packed(packed[len(MAPPED) :])
    return IP.from_packed(packed)


def parse_net(text: str) -> Net:
    """Returns the network of `ADDRESS/PREFIX`. Raises ValueError."""
    address, slash, length = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} has no prefix length (as in {text}/24)")
    ip = parse_ip(address)
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= ip.bits):
        raise ValueError(f"{text!r} has no valid prefix length")
    return Net(ip, int(length))


def parse_mac(text: str) -> bytes:
    """Returns the six bytes of an Ethernet address in the forms that Go reads: 0a:58:..., 0A-58-..., 0a58.0a01.0203.

    Raises ValueError.
    """
    parts, size = (text.split("."), 4) if "." in text else (text.replace("-", ":").split(":"), 2)
    digits = "0123456789abcdefABCDEF"
    if len(parts) * size != 12 or any(len(part) != size or part.strip(digits) for part in parts):
        raise ValueError(f"{text!r} is not a MAC address (as in 0a:58:0a:01:02:03)")
    mac = bytes.fromhex("".join(parts))
    if mac[0] & 1 or not any(mac):
        raise ValueError(f"{text!r} is a group or null address, which no interface can have")
    return mac


def mac_text(mac: bytes) -> str:
    return mac.hex(":")
