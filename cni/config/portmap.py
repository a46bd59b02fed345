"""Port mappings: the capability portMappings, and the reference portmap plugin's keys."""

from __future__ import annotations

from cni.protocol.address import IP, PORT_LIMIT, parse_ip
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.fields import Fields

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # IANA's protocol numbers
MARK_BIT = 13  # the reference's: Kubernetes uses 14 and 15, Calico 20 to 31
BACKENDS = ("", "iptables", "nftables")
VERDICTS = ("accept", "drop", "reject", "queue", "continue", "return", "jump", "goto")
SUBNET, ALL, NOBODY = "subnet", "all", "nobody"


class PortMapping(Record):
    """A port mapping; `host_ip` None: any address of the host, of one family or (0) of both."""

    protocol: str
    host_ip: IP | None
    family: int
    host_port: int
    container_port: int

    def serves(self, family: int) -> bool:
        return self.family in (0, family)

    @property
    def text(self) -> str:
        """Returns [ADDRESS:]HOST:CONTAINER/PROTOCOL; 0.0.0.0 or :: stands for all addresses of its family."""
        host = f"{self.host_port}:{self.container_port}/{self.protocol}"
        if not self.family:
            return host
        ip = self.host_ip or IP(self.family, 0)
        return f"[{ip.text}]:{host}" if self.family == 6 else f"{ip.text}:{host}"


class Ports(Record):
    """The port mappings of a container.

    `masqueraded`: the connections to a host port that get the host's source address: those from the container's own
    SUBNET and from 127.0.0.1, ALL, or NOBODY's. `conditions`: nft expressions by family (4, 6).
    """

    mappings: tuple[PortMapping, ...] = ()
    masqueraded: str = SUBNET
    mark_bit: int = MARK_BIT
    conditions4: str = ""
    conditions6: str = ""

    def conditions(self, family: int) -> str:
        return self.conditions4 if family == 4 else self.conditions6

    @property
    def has_conditions(self) -> bool:
        return bool(self.conditions4 or self.conditions6)

    @property
    def special(self) -> bool:
        """True if the ports need other rules than the default ones."""
        return self.has_conditions or self.mark_bit != MARK_BIT


def parse_ports(fields: Fields) -> Ports:
    """Parses the port mappings; an invalid one is left out, and is an error."""
    if fields.raw("externalSetMarkChain") is not None:
        error = "is a chain of iptables, podwire masquerades in nftables (remove it, or set markMasqBit)"
        fields.error("externalSetMarkChain", error)
    masquerades_all = fields.flag("masqAll")
    snat = fields.raw("snat") is None or fields.flag("snat")
    return Ports(
        mappings=_mappings(fields.object("runtimeConfig").objects("portMappings")),
        masqueraded=NOBODY if not snat else ALL if masquerades_all else SUBNET,
        mark_bit=fields.integer("markMasqBit", 0, 31, MARK_BIT),
        conditions4=_conditions(fields, "conditionsV4"),
        conditions6=_conditions(fields, "conditionsV6"),
    )


def _mappings(objects: list[Fields]) -> tuple[PortMapping, ...]:
    """Returns each mapping once. Two that differ only in the container's port are an error."""
    mappings: dict[PortMapping, None] = {}
    by_host_port: dict[tuple[object, ...], list[PortMapping]] = {}
    for fields in objects:
        mapping = _mapping(fields)
        if mapping is None or mapping in mappings:
            continue
        others = by_host_port.setdefault((mapping.protocol, mapping.host_ip, mapping.host_port), [])
        if any(_conflict(mapping, other) for other in others):
            fields.error("hostPort", f"{mapping.host_port}/{mapping.protocol} is mapped twice")
        else:
            mappings[mapping] = None
            others.append(mapping)
    return tuple(mappings)


def _conflict(mapping: PortMapping, other: PortMapping) -> bool:
    """True if both mappings name one host port with different container ports."""
    overlap = mapping.serves(other.family) or other.serves(mapping.family)
    return overlap and mapping.container_port != other.container_port


def _mapping(fields: Fields) -> PortMapping | None:
    """Parses one mapping; returns None if it has errors."""
    previous_count = fields.errors.count
    protocol = (fields.text("protocol") or "tcp").lower()
    if protocol not in PROTOCOLS:
        fields.error("protocol", f"{protocol!r} is not one of {', '.join(PROTOCOLS)}")
    ip = fields.ip("hostIP")
    host, container = (_port(fields, key) for key in ("hostPort", "containerPort"))
    if fields.errors.count > previous_count:
        return None
    family = 0 if ip is None else ip.family
    return PortMapping(protocol, ip if ip is not None and ip.value else None, family, host, container)


def _port(fields: Fields, key: str) -> int:
    port = fields.optional_integer(key, 1, PORT_LIMIT)
    if port is None:
        fields.error(key, "missing")
    return port or 0


def _conditions(fields: Fields, key: str) -> str:
    """Returns an nft expression. As in the reference, one that begins with - or ! is in iptables' syntax: an error."""
    text = " ".join(fields.texts(key))
    if text[:1] in ("-", "!"):
        fields.error(key, "is in iptables' syntax, podwire needs nft's (as in ip saddr 192.0.2.0/24)")
        return ""
    if any(character in ";#" or not character.isprintable() for character in text) or text.count('"') % 2:
        fields.error(key, "must be one nft expression, without ;, # and control characters, and with paired quotes")
        return ""
    if verdicts := [word for word in text.split() if word in VERDICTS]:
        fields.error(key, f"must be conditions only, without a verdict ({', '.join(verdicts)})")
        return ""
    return text


def parse_mappings(texts: list[str]) -> tuple[PortMapping, ...]:
    """Returns the port mappings in these texts (PortMapping.text); invalid ones are skipped."""
    mappings = []
    for text in texts:
        try:
            mappings.append(_parse_text(text))
        except ValueError:
            continue
    return tuple(mappings)


def _parse_text(text: str) -> PortMapping:
    """Parses PortMapping.text. Raises ValueError."""
    ports, _, protocol = text.partition("/")
    front, container = ports.rsplit(":", 1)
    address, _, host = front.rpartition(":")
    ip = parse_ip(address.strip("[]")) if address else None
    numbers = int(host), int(container)
    if protocol not in PROTOCOLS or not all(1 <= number <= PORT_LIMIT for number in numbers):
        raise ValueError(f"{text!r} is not a port mapping")
    return PortMapping(protocol, ip if ip and ip.value else None, ip.family if ip else 0, *numbers)
