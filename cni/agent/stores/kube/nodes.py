"""Kubernetes nodes and leases: flannel's annotations, byte for byte (pkg/subnet/kube), and the pod CIDRs.

The own node is published as flannel publishes it. Other nodes are read family by family, so that a node that has one of
the network's two families is reached by that one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cni.agent.model.lease import Endpoint, Lease
from cni.agent.model.network import VNI_LIMIT, VXLAN
from cni.agent.stores.kube.resource import is_older
from cni.protocol.address import IP, Net, mac_text, parse_ip, parse_net
from cni.protocol.errors import CniError
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.jsontext import dump, parse_object
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.agent.model.lease import Node
    from cni.agent.model.network import NetworkConfig
    from cni.agent.stores.kube.resource import Json
    from cni.protocol.jsontext import JsonValue

MANAGED = "true"
CONDITION, REASON, MESSAGE = "NetworkUnavailable", "FlannelIsUp", "Flannel is running on this node"
UNSPECIFIED = IP(4, 0)
LONGEST_REASON = 200
ADDRESSES, MOST_ADDRESSES = ("InternalIP", "ExternalIP"), 16
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


class NodeNotUsable(Exception):
    """An error of the own node, which cannot have a lease as it is; the text is for people."""


class Keys(Record):
    """The keys of one family's annotations."""

    data: str
    public_ip: str
    overwrite: str
    selector: str


class Names(Record):
    """The keys of flannel's annotations."""

    managed: str
    backend: str
    ipv4: Keys
    ipv6: Keys

    def of(self, family: int) -> Keys:
        return self.ipv4 if family == 4 else self.ipv6


class OwnNode(Record):
    """The agent's node in Kubernetes, with flannel's annotations. `available`: its NetworkUnavailable is as wanted."""

    uid: str
    revision: str
    cidrs: tuple[str, ...]
    annotations: Mapping[str, str]
    available: bool

    def is_before(self, other: OwnNode) -> bool:
        """True for the same node, but as it was earlier."""
        return self.uid == other.uid and is_older(self.revision, other.revision)

    def says_as(self, other: OwnNode | None) -> bool:
        """True if nothing that matters has changed."""
        return other is not None and self._replace(revision="") == other._replace(revision="")


def annotation_prefix(text: str) -> str:
    """Returns the text before every key: `flannel.alpha.coreos.com/`, or with a part after the slash `example.com/a-`.

    Raises ValueError.
    """
    domain, _, rest = text.partition("/")
    if rest and not rest.endswith("-"):
        rest += "-"
    labels = domain.split(".")
    if len(labels) < 2 or not all(label and LETTERS.issuperset(label) for label in labels):
        raise ValueError(f"{text!r}: expected a domain in lower case first, as in flannel.alpha.coreos.com")
    if rest == "-" or not LETTERS.issuperset(rest):
        raise ValueError(f"{text!r}: only lower case letters, digits, - and _ are allowed after the slash")
    return f"{domain}/{rest}"


def names_of(prefix: str) -> Names:
    """Returns the annotations' keys; `prefix` was returned by `annotation_prefix`."""
    ipv4, ipv6 = (
        Keys(
            f"{prefix}backend-{front}data",
            f"{prefix}public-ip{end}",
            f"{prefix}public-ip{end}-overwrite",
            f"{prefix}node-public-ip{end}",
        )
        for front, end in (("", ""), ("v6-", "v6"))
    )
    return Names(f"{prefix}kube-subnet-manager", f"{prefix}backend-type", ipv4, ipv6)


def own_node(node: Json, names: Names) -> OwnNode:
    """Parses the own node."""
    metadata = node["metadata"]
    annotations = metadata.get("annotations") or {}
    keys = (names.managed, names.backend, *names.ipv4, *names.ipv6)
    conditions = node.get("status", {}).get("conditions") or ()
    available = {"type": CONDITION, "status": "False", "reason": REASON, "message": MESSAGE}.items()
    return OwnNode(
        uid=metadata.get("uid", ""),
        revision=metadata.get("resourceVersion", ""),
        cidrs=_cidrs(node),
        annotations={key: annotations[key] for key in keys if key in annotations},
        available=any(available <= condition.items() for condition in conditions),
    )


def peer(node: Json, names: Names) -> Lease | str | None:
    """Returns the lease of another node, or why it has none; None if it is not one of flannel's."""
    metadata = node["metadata"]
    annotations = metadata.get("annotations") or {}
    if annotations.get(names.managed) != MANAGED:
        return None
    try:
        lease = _lease(_subnets(_cidrs(node)), annotations, names)
        name = str(metadata.get("name", ""))
        return lease._replace(lives=_is_ready(node), created=_created(node), sources=_addresses(node), name=name)
    except (ValueError, CniError) as error:
        return (error.message if isinstance(error, CniError) else str(error))[:LONGEST_REASON]


def override_ips(own: OwnNode, names: Names) -> tuple[IP, ...]:
    """Returns the addresses by which the node's annotations want it to be reached. Raises NodeNotUsable."""
    ips = []
    for family in (4, 6):
        key = names.of(family).selector
        text = own.annotations.get(key)
        if not text:
            continue
        try:
            ip = parse_ip(text)
        except ValueError as error:
            raise NodeNotUsable(f"annotation {key}: {error}") from None
        if ip.family != family:
            raise NodeNotUsable(f"annotation {key}: {text!r} is not an IPv{family} address")
        ips.append(ip)
    return tuple(ips)


def own_subnets(own: OwnNode, name: str, config: NetworkConfig) -> tuple[Net, ...]:
    """Returns the pod CIDRs, one for each family of the network. Raises NodeNotUsable."""
    if not own.cidrs:
        raise NodeNotUsable(
            f'node "{name}" has no pod CIDR yet: the controller manager gives it one (--allocate-node-cidrs)'
        )
    try:
        subnets = _subnets(own.cidrs)
    except ValueError as error:
        raise NodeNotUsable(f'pod CIDR of node "{name}": {error}') from None
    for family in config.families:
        network, subnet = config.network(family), subnets.get(family)
        if subnet is None:
            raise NodeNotUsable(f'node "{name}" has no IPv{family} pod CIDR, only {", ".join(own.cidrs)}')
        if not network.contains(subnet.ip) or subnet.prefix < network.prefix:
            raise NodeNotUsable(f'pod CIDR {subnet.text} of node "{name}" is not in the network {network.text}')
    return tuple([subnets[family] for family in config.families])


def known_lease(own: OwnNode, node: Node, subnets: tuple[Net, ...], names: Names) -> Lease:
    """Returns the lease that the annotations name, for its VTEPs: a device that other nodes know is kept."""
    endpoints = []
    for subnet, address in zip(subnets, node.addresses, strict=True):
        try:
            mac, _ = _vtep(own.annotations.get(names.of(subnet.family).data, ""))
        except (ValueError, CniError):
            mac = None
        endpoints.append(Endpoint(subnet, address.public_ip, mac))
    return Lease(tuple(endpoints), own.annotations.get(names.backend, ""))


def annotations_of(lease: Lease, own: OwnNode, names: Names) -> dict[str, str]:
    """Returns the annotations of the lease. As flannel does, with host-gw those of IPv4 are written even without it."""
    annotations = {names.backend: lease.backend, names.managed: MANAGED}
    for family in (4, 6):
        endpoint, keys = lease.endpoint(family), names.of(family)
        if endpoint is None and (family == 6 or lease.backend == VXLAN):
            continue
        vtep: JsonValue = (
            {"VNI": lease.vni, "VtepMAC": mac_text(endpoint.vtep_mac)}
            if endpoint is not None and endpoint.vtep_mac is not None
            else None
        )
        annotations[keys.data] = dump(vtep)
        ip = endpoint.public_ip if endpoint is not None else UNSPECIFIED
        annotations[keys.public_ip] = own.annotations.get(keys.overwrite) or ip.text
    return annotations


def _is_ready(node: Json) -> bool:
    """True if its kubelet says so, or has not said anything yet."""
    conditions = node.get("status", {}).get("conditions") or ()
    return not any(
        condition.get("type") == "Ready" and condition.get("status") in ("False", "Unknown") for condition in conditions
    )


def _addresses(node: Json) -> tuple[IP, ...]:
    """Returns the addresses that its kubelet reports; a name among them is left out."""
    ips = []
    for address in (node.get("status", {}).get("addresses") or ())[:MOST_ADDRESSES]:
        if address.get("type") in ADDRESSES:
            with suppress(ValueError):
                ips.append(parse_ip(str(address.get("address"))))
    return tuple(ips)


def _created(node: Json) -> int:
    """Returns the server's time, as in 2026-01-31T12:00:00Z, as a number that grows."""
    digits = "".join(filter(str.isdecimal, str(node["metadata"].get("creationTimestamp"))))
    return int(digits[:14] or 0)


def _cidrs(node: Json) -> tuple[str, ...]:
    spec = node.get("spec", {})
    cidrs = spec.get("podCIDRs") or [spec.get("podCIDR")]
    return tuple([cidr for cidr in cidrs if cidr])


def _subnets(cidrs: Iterable[str]) -> dict[int, Net]:
    """Returns the first of each family. Raises ValueError."""
    subnets: dict[int, Net] = {}
    for cidr in cidrs:
        subnet = parse_net(cidr).network
        subnets.setdefault(subnet.family, subnet)
    return subnets


def _lease(subnets: dict[int, Net], annotations: Mapping[str, str], names: Names) -> Lease:
    """Raises ValueError, CniError."""
    backend, vni, endpoints = annotations.get(names.backend, ""), 0, []
    for family, subnet in sorted(subnets.items()):
        keys = names.of(family)
        text = annotations.get(keys.public_ip)
        ip = parse_ip(text) if text else UNSPECIFIED
        if not ip.value:
            continue
        if ip.family != family:
            raise ValueError(f"{keys.public_ip}: {text!r} is not an IPv{family} address")
        mac = None
        if backend == VXLAN:
            mac, number = _vtep(annotations.get(keys.data, ""))
            vni = vni or number
            if mac is None:
                raise ValueError(f"{keys.data}: VtepMAC is missing")
        endpoints.append(Endpoint(subnet, ip, mac))
    if not endpoints:
        raise ValueError(f"it has no {names.ipv4.public_ip}" if subnets else "it has no pod CIDR yet")
    return Lease(tuple(endpoints), backend, vni)


def _vtep(text: str) -> tuple[bytes | None, int]:
    """Returns the MAC address, and the VNI or 0. Raises ValueError, DecodingFailure."""
    if text in ("", "null"):
        return None, 0
    errors = ConfigErrors()
    fields = Fields(parse_object(text.encode(), "its VTEP"), "", errors)
    mac, vni = fields.mac("VtepMAC"), fields.integer("VNI", 0, VNI_LIMIT)
    if errors.messages:
        raise ValueError("; ".join(errors.messages))
    return mac, vni
