"""The network's configuration (flannel's JSON): the address space, its division into subnets, and the backend.

Keys match in any case, and unknown ones are ignored, as by flannel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.address import IP, MTU_LIMIT, PORT_LIMIT, Net
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.jsontext import parse_object
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

VXLAN, HOST_GW = "vxlan", "host-gw"
BACKENDS = (VXLAN, HOST_GW)
VNI_LIMIT = (1 << 24) - 1  # RFC 7348
# By family: the longest network, the longest subnet, and the subnet's usual length.
LONGEST_NETWORK = {4: 28, 6: 124}
LONGEST_SUBNET = {4: 30, 6: 126}
USUAL_SUBNET = {4: 24, 6: 64}
SUBNET_BITS = 2  # at least: a network has four subnets or more


class BackendConfig(Record):
    """`mtu` in bytes of packets on the underlay, 0 for that of the chosen interface; `port` 0: the kernel's (8472)."""

    kind: str
    vni: int
    port: int
    mtu: int
    gbp: bool
    learning: bool
    direct_routing: bool


class Space(Record):
    """One family's addresses: subnets of `length` from `first` to `last`, both by their network address."""

    network: Net
    first: IP
    last: IP
    length: int

    @property
    def step(self) -> int:
        return 1 << self.network.ip.bits - self.length

    def holds(self, subnet: Net) -> bool:
        """Returns True if the subnet is one of this space."""
        low, high = self.first.value, self.last.value
        return subnet.family == self.network.family and subnet.prefix == self.length and low <= subnet.ip.value <= high

    def subnets(self) -> Iterator[Net]:
        for value in range(self.first.value, self.last.value + 1, self.step):
            yield Net(IP(self.network.family, value), self.length)


class NetworkConfig(Record):
    """The configuration. A family without a space is not used."""

    ipv4: Space | None
    ipv6: Space | None
    backend: BackendConfig

    def space(self, family: int) -> Space | None:
        return self.ipv4 if family == 4 else self.ipv6

    def error_of(self, subnet: Net) -> str:
        """Returns why the subnet cannot be one of the network's; empty if it can."""
        network = self.network(subnet.family)
        inside = network.contains(subnet.ip) and subnet.prefix > network.prefix
        return "" if inside else f"{subnet.text} is not in {network.text}"

    def network(self, family: int) -> Net:
        """Returns the network of a family that is enabled."""
        space = self.space(family)
        assert space is not None
        return space.network

    @property
    def families(self) -> tuple[int, ...]:
        return tuple([family for family in (4, 6) if self.space(family) is not None])


def parse_network_config(data: bytes, title: str) -> NetworkConfig:
    """Returns the configuration; errors name it by `title`. Raises DecodingFailure, InvalidConfig (all errors)."""
    errors = ConfigErrors()
    config = read_network(Fields(parse_object(data, title), "", errors))
    errors.raise_if_any()
    return config


def read_network(fields: Fields) -> NetworkConfig:
    """Returns the configuration, and notes every error in `fields`."""
    ipv4 = fields.raw("EnableIPv4") is None or fields.flag("EnableIPv4")
    ipv6 = fields.flag("EnableIPv6")
    if not (ipv4 or ipv6):
        fields.error("EnableIPv4", "neither IPv4 nor IPv6 is enabled")
    return NetworkConfig(
        ipv4=_space(fields, 4, "") if ipv4 else None,
        ipv6=_space(fields, 6, "IPv6") if ipv6 else None,
        backend=_backend(fields.object("Backend")),
    )


def _backend(fields: Fields) -> BackendConfig:
    kind = fields.text("Type", "udp").lower()  # flannel's default, whatever its documentation says
    if kind not in BACKENDS:
        fields.error("Type", f"{kind!r} is not supported, {' and '.join(BACKENDS)} are (without Type it would be udp)")
    return BackendConfig(
        kind=kind,
        vni=fields.integer("VNI", 0, VNI_LIMIT, 1),
        port=fields.integer("Port", 0, PORT_LIMIT),
        mtu=fields.integer("MTU", 0, MTU_LIMIT),
        gbp=fields.flag("GBP"),
        learning=fields.flag("Learning"),
        direct_routing=fields.flag("DirectRouting"),
    )


def _space(fields: Fields, family: int, front: str) -> Space | None:
    """Returns a family's space, and notes every error; None if there is no valid network. `front` begins the keys."""
    key = f"{front}Network"
    given = fields.net(key)
    if given is None or given.family != family:
        if given is not None or fields.raw(key) in (None, ""):
            fields.error(
                key, f"needs an IPv{family} network (as in {'10.244.0.0/16' if family == 4 else 'fd00:244::/56'})"
            )
        return None
    network = given.network
    if network.prefix > LONGEST_NETWORK[family]:
        fields.error(key, f"{network.text} is too small, the longest prefix is {LONGEST_NETWORK[family]}")
        return None
    usual = USUAL_SUBNET[family]
    default = max(usual, network.prefix + SUBNET_BITS)
    length = fields.integer(f"{front}SubnetLen", 0, LONGEST_SUBNET[family], default) or default
    if length < network.prefix + SUBNET_BITS:
        fields.error(f"{front}SubnetLen", f"{network.text} must accommodate at least four subnets of /{length}")
        return None
    step = 1 << network.ip.bits - length
    first = _bound(fields, f"{front}SubnetMin", network, step, network.ip.value + step)
    last = _bound(fields, f"{front}SubnetMax", network, step, network.last.value + 1 - step)
    if first.value > last.value:
        fields.error(f"{front}SubnetMin", f"{first.text} is behind {last.text}, the last subnet")
    return Space(network, first, last, length)


def _bound(fields: Fields, key: str, network: Net, step: int, default: int) -> IP:
    ip = fields.ip(key)
    if ip is None:
        return IP(network.family, default)
    if not network.contains(ip):
        fields.error(key, f"{ip.text} is not in {network.text}")
    elif ip.value % step:
        fields.error(key, f"{ip.text} is not the first address of a subnet")
    return ip
