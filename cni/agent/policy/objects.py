"""Objects of the Kubernetes API that decide who may talk to whom, with the API's defaults applied.

The parsers take decoded JSON. A policy that cannot be understood, though its selector and types can be read, isolates
what it selects and allows nothing: `error` says why.
"""

from __future__ import annotations

from sys import intern
from typing import TYPE_CHECKING

from cni.agent.policy.jsonobject import Invalid, JsonObject
from cni.agent.policy.selectors import Selector, read_selector
from cni.protocol.address import IP, PORT_LIMIT, Net, parse_ip, parse_net
from cni.protocol.fields import ConfigErrors
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.agent.policy.jsonobject import Labels
    from cni.protocol.jsontext import JsonValue

INGRESS, EGRESS = "Ingress", "Egress"
TCP, UDP, SCTP = "TCP", "UDP", "SCTP"
PROTOCOLS = (TCP, UDP, SCTP)  # a policy's port of any other matches nothing
NAMESPACE_NAME = "kubernetes.io/metadata.name"  # the label that the API gives to every namespace
DEFAULT_NAMESPACE = "default"
FINISHED = ("Succeeded", "Failed")
NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")
NAME_LIMIT, NAMESPACE_LIMIT, PORT_NAME_LIMIT = 253, 63, 15  # RFC 1123; RFC 6335


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


class Rule(Record):
    """Traffic that a policy allows: no peer means anybody, no port means every port and protocol."""

    peers: tuple[PodPeer | IpBlock, ...] = ()
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
    def title(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_namespace(value: JsonValue) -> Namespace:
    """Returns a Namespace. Raises Invalid."""
    fields = _object(value)
    metadata = fields.object("metadata")
    name = _name(metadata, "name", "", NAMESPACE_LIMIT)
    labels = dict(metadata.labels("labels")) | {NAMESPACE_NAME: name}
    _raise_if_any(fields.errors)
    return Namespace(name, tuple(sorted(labels.items())))


def parse_pod(value: JsonValue) -> Pod:
    """Returns a Pod. Raises Invalid."""
    fields = _object(value)
    metadata, spec, status = fields.object("metadata"), fields.object("spec"), fields.object("status")
    namespace = _name(metadata, "namespace", DEFAULT_NAMESPACE, NAMESPACE_LIMIT)
    pod = Pod(
        namespace,
        _name(metadata, "name", "", NAME_LIMIT),
        metadata.labels("labels"),
        tuple(dict.fromkeys(_addresses(status))),
        tuple(sorted(set(_container_ports(spec)))),
        spec.flag("hostNetwork"),
        status.text("phase") in FINISHED,
        intern(spec.text("nodeName")),
    )
    _raise_if_any(fields.errors)
    return pod


def parse_policy(value: JsonValue) -> NetworkPolicy:
    """Returns a NetworkPolicy. Raises Invalid if its name, selector or types cannot be read."""
    fields = _object(value)
    metadata, spec = fields.object("metadata"), fields.object("spec")
    namespace = _name(metadata, "namespace", DEFAULT_NAMESPACE, NAMESPACE_LIMIT)
    name = _name(metadata, "name", "", NAME_LIMIT)
    selector = read_selector(spec.object("podSelector"))
    types = spec.texts("policyTypes") or ((INGRESS, EGRESS) if spec.is_filled("egress") else (INGRESS,))
    ingress, egress = INGRESS in types, EGRESS in types
    if not (ingress or egress):
        spec.error("policyTypes", f"neither {INGRESS} nor {EGRESS} is among {', '.join(types)}")
    _raise_if_any(fields.errors)
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


def _object(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise Invalid("expected an object")
    return JsonObject(value, "", ConfigErrors())


def _raise_if_any(errors: ConfigErrors) -> None:
    if errors.count:
        raise Invalid(errors.summary)


def _name(metadata: JsonObject, key: str, default: str, limit: int) -> str:
    """Returns a name as RFC 1123 has them: it becomes a part of chains' names."""
    name = metadata.text(key, default)
    if not name or len(name) > limit or not NAME_LETTERS.issuperset(name):
        metadata.error(key, f"{name!r} is not a name of at most {limit} lower case letters, digits, '-' and '.'")
    return intern(name)


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
    sidecars = [one for one in spec.objects("initContainers") if one.text("restartPolicy") == "Always"]
    for container in spec.objects("containers") + sidecars:
        for port in container.objects("ports"):
            name, number = port.text("name"), port.port("containerPort")
            if name and number:
                yield NamedPort(intern(name), intern(port.text("protocol", TCP)), number)


def _rules(rules: list[JsonObject], peers: str, namespace: str) -> tuple[Rule, ...]:
    found = []
    for fields in rules:
        fields.unknown_keys(peers, "ports")
        found.append(
            Rule(
                tuple([_peer(peer, namespace) for peer in fields.objects(peers)]),
                tuple([_port(port) for port in fields.objects("ports")]),
            )
        )
    return tuple(found)


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
    net = _net(fields, "cidr", fields.text("cidr"))
    excepts = [_net(fields, f"except[{n}]", text) for n, text in enumerate(fields.texts("except"))]
    for position, part in enumerate(excepts):
        if part.prefix <= net.prefix or not net.contains(part.ip):
            fields.error(f"except[{position}]", f"{part.text} is not a part of {net.text}")
    return IpBlock(net, tuple(sorted(set(excepts))))


def _net(fields: JsonObject, key: str, text: str) -> Net:
    try:
        return parse_net(text).network
    except ValueError as error:
        fields.error(key, str(error))
        return Net(IP(4, 0), 0)


def _port(fields: JsonObject) -> PortRange:
    fields.unknown_keys("protocol", "port", "endPort")
    protocol = intern(fields.text("protocol", TCP))
    if fields.is_text("port"):
        name = intern(fields.text("port"))
        if len(name) > PORT_NAME_LIMIT or not NAME_LETTERS.issuperset(name) or not name.strip("0123456789-."):
            fields.error("port", f"{name!r} is not a port's name (a number has no quotes)")
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
