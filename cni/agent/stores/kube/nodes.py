"""Kubernetes nodes and leases: flannel's annotations, byte for byte (pkg/subnet/kube), and the pod CIDRs.

What is published is what flannel publishes; what others have published is read family by family, so that a node that
has one of the network's two families is reached by that one.
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
LONGEST_FAULT = 200
ADDRESSES, MOST_ADDRESSES = ("InternalIP", "ExternalIP"), 16
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


class NodeNotUsable(Exception):
    """The node cannot have a lease as it is; the text is for people."""


class Keys(Record):
    """Of one family's annotations."""

    data: str
    public_ip: str
    overwrite: str
    selector: str


class Names(Record):
    """The annotations' keys."""

    managed: str
    backend: str
    ipv4: Keys
    ipv6: Keys

    def of(self, family: int) -> Keys:
        return self.ipv4 if family == 4 else self.ipv6


class OwnNode(Record):
    """The agent's, as Kubernetes has it; of its annotations only flannel's. `available`: its condition is as wanted."""

    uid: str
    revision: str
    cidrs: tuple[str, ...]
    annotations: Mapping[str, str]
    available: bool

    def is_before(self, other: OwnNode) -> bool:
        """The same node, but as it was earlier."""
        return self.uid == other.uid and is_older(self.revision, other.revision)

    def says_as(self, other: OwnNode | None) -> bool:
        """Nothing that matters has changed."""
        return other is not None and self._replace(revision="") == other._replace(revision="")


def annotation_prefix(text: str) -> str:
    """The text before every key: `flannel.alpha.coreos.com/`, or with a part behind the slash `example.com/a-`.

    Raises ValueError.
    """
    domain, _, rest = text.partition("/")
    if rest and not rest.endswith("-"):
        rest += "-"
    labels = domain.split(".")
    if len(labels) < 2 or not all(label and LETTERS.issuperset(label) for label in labels):
        raise ValueError(f"{text!r} does not begin with a domain in small letters, as flannel.alpha.coreos.com does")
    if rest == "-" or not LETTERS.issuperset(rest):
        raise ValueError(f"{text!r} has more behind its slash than small letters, digits, - and _")
    return f"{domain}/{rest}"


def names_of(prefix: str) -> Names:
    """`prefix`: a whole one."""
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
    metadata = node["metadata"]
    found = metadata.get("annotations") or {}
    wanted = (names.managed, names.backend, *names.ipv4, *names.ipv6)
    conditions = node.get("status", {}).get("conditions") or ()
    available = {"type": CONDITION, "status": "False", "reason": REASON, "message": MESSAGE}.items()
    return OwnNode(
        uid=metadata.get("uid", ""),
        revision=metadata.get("resourceVersion", ""),
        cidrs=_cidrs(node),
        annotations={key: found[key] for key in wanted if key in found},
        available=any(available <= one.items() for one in conditions),
    )


def peer(node: Json, names: Names) -> Lease | str | None:
    """What another node can be reached by, or why it cannot; None where it is not one of flannel's."""
    annotations = node["metadata"].get("annotations") or {}
    if annotations.get(names.managed) != MANAGED:
        return None
    try:
        lease = _lease(_subnets(_cidrs(node)), annotations, names)
        return lease._replace(lives=_is_ready(node), created=_created(node), sources=_addresses(node))
    except (ValueError, CniError) as error:
        return (error.message if isinstance(error, CniError) else str(error))[:LONGEST_FAULT]


def override_ips(own: OwnNode, names: Names) -> tuple[IP, ...]:
    """By which addresses the node's annotations want it to be reached. Raises NodeNotUsable."""
    found = []
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
            raise NodeNotUsable(f"annotation {key}: {text!r} is no IPv{family} address")
        found.append(ip)
    return tuple(found)


def own_subnets(own: OwnNode, name: str, config: NetworkConfig) -> tuple[Net, ...]:
    """One for each family of the network. Raises NodeNotUsable."""
    if not own.cidrs:
        raise NodeNotUsable(
            f'node "{name}" has no pod CIDR yet: the controller manager gives it one (--allocate-node-cidrs)'
        )
    try:
        found = _subnets(own.cidrs)
    except ValueError as error:
        raise NodeNotUsable(f'pod CIDR of node "{name}": {error}') from None
    for family in config.families:
        network, subnet = config.network(family), found.get(family)
        if subnet is None:
            raise NodeNotUsable(f'node "{name}" has no IPv{family} pod CIDR, only {", ".join(own.cidrs)}')
        if not network.contains(subnet.ip) or subnet.prefix < network.prefix:
            raise NodeNotUsable(f'pod CIDR {subnet.text} of node "{name}" is not in the network {network.text}')
    return tuple([found[family] for family in config.families])


def known_lease(own: OwnNode, node: Node, subnets: tuple[Net, ...], names: Names) -> Lease:
    """What the annotations say of this node's VTEPs, whatever else they say: a device that others know lives on."""
    endpoints = []
    for subnet, address in zip(subnets, node.addresses, strict=True):
        try:
            mac, _ = _vtep(own.annotations.get(names.of(subnet.family).data, ""))
        except (ValueError, CniError):
            mac = None
        endpoints.append(Endpoint(subnet, address.public_ip, mac))
    return Lease(tuple(endpoints), own.annotations.get(names.backend, ""))


def annotations_of(lease: Lease, own: OwnNode, names: Names) -> dict[str, str]:
    """The annotations that tell of the lease. As flannel does it, with host-gw IPv4 is told of even without it."""
    said = {names.backend: lease.backend, names.managed: MANAGED}
    for family in (4, 6):
        endpoint, keys = lease.endpoint(family), names.of(family)
        if endpoint is None and (family == 6 or lease.backend == VXLAN):
            continue
        vtep: JsonValue = (
            {"VNI": lease.vni, "VtepMAC": mac_text(endpoint.vtep_mac)}
            if endpoint is not None and endpoint.vtep_mac is not None
            else None
        )
        said[keys.data] = dump(vtep)
        ip = endpoint.public_ip if endpoint is not None else UNSPECIFIED
        said[keys.public_ip] = own.annotations.get(keys.overwrite) or ip.text
    return said


def _is_ready(node: Json) -> bool:
    """Its kubelet says so; of one that has not said anything yet nothing bad is known."""
    conditions = node.get("status", {}).get("conditions") or ()
    return not any(one.get("type") == "Ready" and one.get("status") in ("False", "Unknown") for one in conditions)


def _addresses(node: Json) -> tuple[IP, ...]:
    """Returns the addresses that its kubelet tells; a name among them is left out."""
    found = []
    for one in (node.get("status", {}).get("addresses") or ())[:MOST_ADDRESSES]:
        if one.get("type") in ADDRESSES:
            with suppress(ValueError):
                found.append(parse_ip(str(one.get("address"))))
    return tuple(found)


def _created(node: Json) -> int:
    """The server's time, as 2026-01-31T12:00:00Z, in a number that grows."""
    digits = "".join(filter(str.isdecimal, str(node["metadata"].get("creationTimestamp"))))
    return int(digits[:14] or 0)


def _cidrs(node: Json) -> tuple[str, ...]:
    spec = node.get("spec", {})
    found = spec.get("podCIDRs") or [spec.get("podCIDR")]
    return tuple([cidr for cidr in found if cidr])


def _subnets(cidrs: Iterable[str]) -> dict[int, Net]:
    """The first of each family. Raises ValueError."""
    found: dict[int, Net] = {}
    for cidr in cidrs:
        subnet = parse_net(cidr).network
        found.setdefault(subnet.family, subnet)
    return found


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
            raise ValueError(f"{keys.public_ip}: {text!r} is no IPv{family} address")
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
    """MAC address, and VNI or 0. Raises ValueError, DecodingFailure."""
    if text in ("", "null"):
        return None, 0
    errors = ConfigErrors()
    fields = Fields(parse_object(text.encode(), "its VTEP"), "", errors)
    mac, vni = fields.mac("VtepMAC"), fields.integer("VNI", 0, VNI_LIMIT)
    if errors.messages:
        raise ValueError("; ".join(errors.messages))
    return mac, vni
