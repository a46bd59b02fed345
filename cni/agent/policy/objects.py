"""Objects of the Kubernetes API that decide who may talk to whom, with the API's defaults applied.

The parsers take decoded JSON. A policy that cannot be understood, though its selector and types can be read, isolates
what it selects and allows nothing: `error` says why.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING

from cni.agent.policy.jsonobject import JsonObject, raise_if_any, read_object
from cni.agent.policy.selectors import Selector, read_selector
from cni.protocol.address import IP, PORT_LIMIT, Net, parse_ip, parse_net
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.agent.policy.jsonobject import Labels
    from cni.protocol.jsontext import JsonValue

INGRESS, EGRESS = "Ingress", "Egress"
DIRECTIONS = (INGRESS, EGRESS)
TCP, UDP, SCTP = "TCP", "UDP", "SCTP"
PROTOCOLS = (TCP, UDP, SCTP)  # a policy's port of any other matches nothing
NAMESPACE_NAME = "kubernetes.io/metadata.name"  # the label that the API gives to every namespace
DEFAULT_NAMESPACE = "default"
FINISHED = ("Succeeded", "Failed")
NAME_LIMIT, NAMESPACE_LIMIT = 253, 63  # RFC 1123


class Namespace(Record):
    """A namespace; NAMESPACE_NAME is among its labels."""

    name: str
    labels: Labels


class NamedPort(Record):
    """A port of a container, by its name."""

    name: str
    protocol: str
    number: int


class Pod(Record):
    """A pod. `addresses`: 4 or 16 bytes each. A pod in the host's network has the node's, and stands for nobody."""

    namespace: str
    name: str
    labels: Labels
    addresses: tuple[bytes, ...]
    ports: tuple[NamedPort, ...]
    host_network: bool
    finished: bool
    node: str

    @property
    def is_subject(self) -> bool:
        """True if selectors can select it: it runs in a network of its own, or will."""
        return not (self.host_network or self.finished)


class PodPeer(Record):
    """The pods that `pods` selects in one namespace, by its name, or in all that a selector selects."""

    namespaces: str | Selector
    pods: Selector


class IpBlock(Record):
    """The addresses of a network but those of some networks inside."""

    net: Net
    excepts: tuple[Net, ...]

    def contains(self, ip: IP) -> bool:
        return self.net.contains(ip) and not any(part.contains(ip) for part in self.excepts)


class NodePeer(Record):
    """The nodes that a selector selects, by all addresses that they have."""

    nodes: Selector


class PortRange(Record):
    """Ports `first` to `last` of a protocol, or where `name` is not empty, the destination's ports of that name."""

    protocol: str
    first: int = 0
    last: int = PORT_LIMIT
    name: str = ""

    @property
    def is_any(self) -> bool:
        """True if it has all ports of its protocol."""
        return not self.name and (self.first, self.last) == (0, PORT_LIMIT)


Peer = PodPeer | IpBlock | NodePeer


class Rule(Record):
    """Traffic that a policy is about: no peer means anybody, no port means every port and protocol."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[PortRange, ...] = ()


class NetworkPolicy(Record):
    """A policy. None: it does not isolate the direction; `error`: why it allows nothing, or empty."""

    namespace: str
    name: str
    selector: Selector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    error: str = ""

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        return self.ingress if direction == INGRESS else self.egress

    @property
    def subject(self) -> PodPeer:
        """The pods that it selects."""
        return PodPeer(self.namespace, self.selector)

    @property
    def selection(self) -> tuple[object, ...]:
        """The pods that it selects, and the directions in which it isolates them."""
        return self.subject, self.ingress is not None, self.egress is not None

    @property
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_namespace(value: JsonValue) -> Namespace:
    """Returns a Namespace. Raises Invalid."""
    fields = read_object(value)
    metadata = fields.object("metadata")
    name = metadata.name("name", "", NAMESPACE_LIMIT)
    labels = dict(metadata.labels("labels")) | {NAMESPACE_NAME: name}
    raise_if_any(fields.errors)
    return Namespace(name, tuple(sorted(labels.items())))


def parse_pod(value: JsonValue) -> Pod:
    """Returns a Pod. Raises Invalid."""
    fields = read_object(value)
    metadata, spec, status = fields.object("metadata"), fields.object("spec"), fields.object("status")
    namespace = metadata.name("namespace", DEFAULT_NAMESPACE, NAMESPACE_LIMIT)
    pod = Pod(
        namespace,
        metadata.name("name", "", NAME_LIMIT),
        metadata.labels("labels"),
        tuple(dict.fromkeys(_addresses(status))),
        tuple(sorted(set(_container_ports(spec)))),
        spec.flag("hostNetwork"),
        status.text("phase") in FINISHED,
        intern(spec.text("nodeName")),
    )
    raise_if_any(fields.errors)
    return pod


def parse_policy(value: JsonValue) -> NetworkPolicy:
    """Returns a NetworkPolicy. Raises Invalid if its name, selector or types cannot be read."""
    fields = read_object(value)
    metadata, spec = fields.object("metadata"), fields.object("spec")
    namespace = metadata.name("namespace", DEFAULT_NAMESPACE, NAMESPACE_LIMIT)
    name = metadata.name("name", "", NAME_LIMIT)
    selector = read_selector(spec.object("podSelector"))
    types = spec.texts("policyTypes") or ((INGRESS, EGRESS) if spec.is_filled("egress") else (INGRESS,))
    ingress, egress = INGRESS in types, EGRESS in types
    if not (ingress or egress):
        spec.error("policyTypes", f"neither {INGRESS} nor {EGRESS} is among {', '.join(types)}")
    raise_if_any(fields.errors)
    spec.unknown_keys("podSelector", "policyTypes", "ingress", "egress")
    for direction in types:
        if direction not in (INGRESS, EGRESS):
            spec.error("policyTypes", f"{direction!r} is neither {INGRESS} nor {EGRESS}")
    policy = NetworkPolicy(
        namespace,
        name,
        selector,
        _rules(spec.objects("ingress"), "from", namespace) if ingress else None,
        _rules(spec.objects("egress"), "to", namespace) if egress else None,
    )
    if not fields.errors.count:
        return policy
    return policy._replace(ingress=() if ingress else None, egress=() if egress else None, error=fields.errors.summary)


def _addresses(status: JsonObject) -> Iterator[bytes]:
    """Yields the addresses of podIPs, or of podIP, which older or hand-written objects have alone."""
    entries = [(entry, "ip") for entry in status.objects("podIPs")] or [(status, "podIP")]
    for entry, key in entries:
        text = entry.text(key)
        try:
            if text:
                yield parse_ip(text).packed
        except ValueError as error:
            entry.error(key, str(error))


def _container_ports(spec: JsonObject) -> Iterator[NamedPort]:
    """Yields the named ports of containers, and of init containers that go on running (sidecars)."""
    sidecars = [
        container for container in spec.objects("initContainers") if container.text("restartPolicy") == "Always"
    ]
    for container in spec.objects("containers") + sidecars:
        for port in container.objects("ports"):
            name, number = port.text("name"), port.port("containerPort")
            if name and number:
                yield NamedPort(intern(name), intern(port.text("protocol", TCP)), number)


def _rules(rules: list[JsonObject], peers: str, namespace: str) -> tuple[Rule, ...]:
    parsed = []
    for fields in rules:
        fields.unknown_keys(peers, "ports")
        parsed.append(
            Rule(
                tuple([_peer(peer, namespace) for peer in fields.objects(peers)]),
                tuple([_port(port) for port in fields.objects("ports")]),
            )
        )
    return tuple(parsed)


def _peer(fields: JsonObject, namespace: str) -> PodPeer | IpBlock:
    fields.unknown_keys("podSelector", "namespaceSelector", "ipBlock")
    selects = fields.has("podSelector") or fields.has("namespaceSelector")
    if fields.has("ipBlock") == selects:
        fields.error("ipBlock", "stands beside a selector" if selects else "neither it nor a selector is there")
    if fields.has("ipBlock"):
        return _block(fields.object("ipBlock"))
    namespaces = read_selector(fields.object("namespaceSelector")) if fields.has("namespaceSelector") else namespace
    return PodPeer(namespaces, read_selector(fields.object("podSelector")))


def _block(fields: JsonObject) -> IpBlock:
    fields.unknown_keys("cidr", "except")
    net = read_net(fields, "cidr", fields.text("cidr"))
    excepts = [read_net(fields, f"except[{n}]", text) for n, text in enumerate(fields.texts("except"))]
    for position, part in enumerate(excepts):
        if part.prefix <= net.prefix or not net.contains(part.ip):
            fields.error(f"except[{position}]", f"{part.text} is not a part of {net.text}")
    return IpBlock(net, tuple(sorted(set(excepts))))


def read_net(fields: JsonObject, key: str, text: str) -> Net:
    """Returns a network that is written at a key, which may be the place in a list."""
    try:
        return parse_net(text).network
    except ValueError as error:
        fields.error(key, str(error))
        return Net(IP(4, 0), 0)


def _port(fields: JsonObject) -> PortRange:
    fields.unknown_keys("protocol", "port", "endPort")
    protocol = intern(fields.text("protocol", TCP))
    if fields.is_text("port"):
        name = fields.port_name("port")
        if fields.has("endPort"):
            fields.error("endPort", "needs a port by its number")
        return PortRange(protocol, name=name)
    if not fields.has("port"):
        if fields.has("endPort"):
            fields.error("endPort", "needs a port")
        return PortRange(protocol)
    first, last = fields.port("port"), fields.port("endPort")
    if fields.has("endPort") and last < first:
        fields.error("endPort", f"{last} is less than port {first}")
    return PortRange(protocol, first, last or first)
