"""Leases: which node has which subnet and how it is reached, in flannel's format, byte for byte.

A lease's key in etcd is `10.5.52.0-24`, or with IPv6 `10.5.34.0-24&fc00:0:0:1::-64`; its value is JSON as Go writes it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cni.agent.model.leaseformat import lease_format
from cni.protocol.address import IP, Net, parse_net
from cni.protocol.errors import CniError
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.jsontext import parse_object
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.model.network import BackendConfig
    from cni.protocol.jsontext import JsonValue


NOT_OF_NODES = {
    4: tuple(map(parse_net, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"))),
    6: tuple(map(parse_net, ("::/127", "fe80::/10", "ff00::/8"))),
}  # RFC 6890


class Endpoint(Record):
    """One family of a node: its subnet, its address on the underlay, and with vxlan the MAC address of its VTEP."""

    subnet: Net
    public_ip: IP
    vtep_mac: bytes | None = None

    @property
    def is_reachable(self) -> bool:
        """True if the public IP address is one that a node can have."""
        ip = self.public_ip
        return not any(net.contains(ip) for net in NOT_OF_NODES[ip.family])


class NodeAddress(Record):
    """One family of a node without its subnet: its address on the underlay, and with vxlan the VTEP's MAC address."""

    public_ip: IP
    vtep_mac: bytes | None = None


class Node(Record):
    """The node's part of its own lease. `addresses`: one for each family of the network; `vni` is vxlan's."""

    backend: str
    vni: int
    addresses: tuple[NodeAddress, ...]

    @property
    def macs(self) -> tuple[bytes | None, ...]:
        """The MAC addresses of the VTEPs, in the order of `addresses`."""
        return tuple([address.vtep_mac for address in self.addresses])

    def lease(self, subnets: Iterable[Net], previous: Lease | None = None) -> Lease:
        """Returns a lease of these subnets, one for each address, in the same order.

        It keeps the MAC addresses of the node's previous lease, since other nodes know that device.
        """
        endpoints = []
        kept = previous if previous is not None and previous.backend == self.backend else None
        for subnet, address in zip(subnets, self.addresses, strict=True):
            known = kept.endpoint(subnet.family) if kept is not None else None
            mac = known.vtep_mac if known is not None and known.vtep_mac is not None else address.vtep_mac
            endpoints.append(Endpoint(subnet, address.public_ip, mac))
        return Lease(tuple(endpoints), self.backend, self.vni)


class Lease(Record):
    """A node's lease. `endpoints` has one entry for each family of the node; `vni` is vxlan's, 0 if it is unknown.

    The store says whether the node `lives`, and when the lease was `created`, as a number that grows: both decide
    between conflicting leases. `sources`: other addresses from which the node's packets may arrive (NAT). `name` is the
    node's; etcd knows none.
    """

    endpoints: tuple[Endpoint, ...]
    backend: str
    vni: int = 0
    lives: bool = True
    created: int = 0
    sources: tuple[IP, ...] = ()
    name: str = ""

    def endpoint(self, family: int) -> Endpoint | None:
        for endpoint in self.endpoints:
            if endpoint.subnet.family == family:
                return endpoint
        return None

    @property
    def subnets(self) -> tuple[Net, ...]:
        return tuple([endpoint.subnet for endpoint in self.endpoints])

    @property
    def key(self) -> str:
        return lease_key(self.subnets)


def node_of(backend: BackendConfig, public_ips: Iterable[IP]) -> Node:
    """Returns this node's part of its lease; `public_ips` are the addresses that other nodes reach it by."""
    parts = lease_format(backend.kind)
    vni = parts.vni(backend)
    return Node(backend.kind, vni, tuple([NodeAddress(ip, parts.vtep_mac(ip, vni)) for ip in public_ips]))


def lease_key(subnets: Iterable[Net]) -> str:
    """Returns the part of an etcd key behind `<prefix>/subnets/`."""
    return "&".join(f"{subnet.ip.text}-{subnet.prefix}" for subnet in subnets)


def parse_key(key: str) -> tuple[Net, ...]:
    """Returns the subnets, IPv4 before IPv6; flanneld ignores keys of IPv6 alone. Raises ValueError."""
    subnets = [parse_net("/".join(part.rsplit("-", 1))) for part in key.split("&")]
    if [subnet.family for subnet in subnets] not in ([4], [4, 6], [6]):
        raise ValueError(f"{key!r} is not the key of a subnet (as in 10.5.52.0-24)")
    if lease_key(subnets) != key:
        raise ValueError(f"{key!r} is another writing of {lease_key(subnets)}")
    if not all(subnet.is_network for subnet in subnets):
        raise ValueError(f"{key!r} is not the first address of its subnet")
    return tuple(subnets)


def lease_value(lease: Lease) -> bytes:
    """Returns the value of etcd's key: members in the order of flannel's struct, PublicIPv6 even if it is null."""
    ipv4, ipv6 = lease.endpoint(4), lease.endpoint(6)
    members: dict[str, JsonValue] = {
        "PublicIP": ipv4.public_ip.text if ipv4 else "0.0.0.0",  # noqa: S104  # Go's zero value
        "PublicIPv6": ipv6.public_ip.text if ipv6 else None,
        "BackendType": lease.backend,
    }
    for key, endpoint in (("BackendData", ipv4), ("BackendV6Data", ipv6)):
        data = lease_format(lease.backend).render(endpoint.vtep_mac, lease.vni) if endpoint is not None else None
        if data is not None:
            members[key] = data
    return json.dumps(members, separators=(",", ":")).encode()


def parse_lease(subnets: tuple[Net, ...], value: bytes, created: int = 0) -> Lease:
    """Returns the lease in the value of etcd's key, which has this create revision. Raises ValueError with all errors
    of the value.
    """
    errors = ConfigErrors()
    try:
        fields = Fields(parse_object(value, "the lease"), "", errors)
    except CniError as error:
        raise ValueError(error.message) from None
    backend = fields.text("BackendType")
    endpoints, vni = [], 0
    for subnet in subnets:
        ip_key, data_key = ("PublicIP", "BackendData") if subnet.family == 4 else ("PublicIPv6", "BackendV6Data")
        ip = fields.ip(ip_key)
        if ip is None or not ip.value:
            errors.add(ip_key, "missing")
            continue
        if ip.family != subnet.family:
            errors.add(ip_key, f"{ip.text} is not an IPv{subnet.family} address")
        mac, number = lease_format(backend).parse(fields, data_key)
        vni = vni or number
        endpoints.append(Endpoint(subnet, ip, mac))
    if errors.messages:
        raise ValueError("; ".join(dict.fromkeys(errors.messages)))
    return Lease(tuple(endpoints), backend, vni, created=created)
