"""The two ends of a connection, from what people type: an attachment, and another one or any address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cni.diag.node.attachments import PRESENT, called
from cni.diag.output import printable
from cni.protocol.address import PORT_LIMIT, parse_ip, parse_net
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.node.attachments import Attached
    from cni.protocol.address import IP

TCP, UDP, SCTP, ICMP = "tcp", "udp", "sctp", "icmp"
PROTOCOLS = (TCP, UDP, SCTP, ICMP)
POD_INTERFACE = "eth0"  # of a pod's own network, for all runtimes of Kubernetes


class Connection(Record):
    """A connection. `target` is the attachment that has the destination's address, None if none of this node has it.
    `port` is 0 for ICMP.
    """

    source: Attached
    source_ip: IP
    target: Attached | None
    target_ip: IP
    protocol: str
    port: int

    @property
    def family(self) -> int:
        return self.source_ip.family

    @property
    def traffic(self) -> str:
        return f"{self.protocol.upper()}/{self.port}" if self.port else "ICMP echo"


class Destination(Record):
    """A destination as it was typed; of several readings of a text the first that names something is meant."""

    name: str
    protocol: str
    port: int


def connection(seen: Sequence[Attached], source: str, destination: str) -> Connection:
    """Returns the connection between two ends, in the first family that both have. Raises click.UsageError."""
    attached = _only(seen, source)
    sources = addresses_of(attached)
    if not sources:
        raise click.UsageError(f"{source} has no address that is known (podwire ps {source})")
    typed, target, targets = _target(seen, destination)
    for source_ip in sources:
        for target_ip in targets:
            if source_ip.family == target_ip.family:
                return Connection(attached, source_ip, target, target_ip, typed.protocol, typed.port)
    raise click.UsageError(f"{source} and {typed.name} have no addresses of the same family")


def addresses_of(attached: Attached) -> list[IP]:
    return [parse_net(address).ip for address in attached.addresses]


def holder_of(seen: Sequence[Attached], ip: IP) -> Attached | None:
    """Returns the attachment that has an address, one with an interface before one that has lost it."""
    holders = [each for each in seen if ip in addresses_of(each)]
    return next((each for each in holders if each.interface == PRESENT), next(iter(holders), None))


def _target(seen: Sequence[Attached], text: str) -> tuple[Destination, Attached | None, list[IP]]:
    error = f"{text!r} is neither an attachment's name nor an address"
    for reading in _readings(text):
        name = reading.name[1:-1] if reading.name.startswith("[") and reading.name.endswith("]") else reading.name
        try:
            ip = parse_ip(name)
        except ValueError:
            if called(seen, name):
                attached = _only(seen, name)
                return _checked(reading), attached, addresses_of(attached)
        else:
            return _checked(reading), holder_of(seen, ip), [ip]
    raise click.UsageError(f"{error} (TO[:PORT][/PROTOCOL]; podwire ps lists all)")


def _readings(text: str) -> Iterator[Destination]:
    """Yields what `TO[:PORT][/PROTOCOL]` may mean: a name may itself have a slash, an address colons."""
    yield Destination(text, ICMP, 0)
    front, slash, protocol = text.rpartition("/")
    has_protocol = bool(slash) and protocol.lower() in PROTOCOLS
    if has_protocol:
        yield Destination(front, protocol.lower(), 0)
    name, colon, port = (front if has_protocol else text).rpartition(":")
    if colon:
        port, slash, unknown = port.partition("/")
        number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else -1
        yield Destination(name, protocol.lower() if has_protocol else unknown if slash else TCP, number or -1)


def _checked(typed: Destination) -> Destination:
    """Raises click.UsageError for a protocol or a port that is none, and where a protocol lacks one."""
    if typed.protocol not in PROTOCOLS:
        raise click.UsageError(f"protocol {typed.protocol!r} is none of {', '.join(PROTOCOLS)}")
    if not -1 < typed.port <= PORT_LIMIT:
        raise click.UsageError(f"the port of {typed.name} is not a number from 1 to {PORT_LIMIT}")
    if (typed.protocol == ICMP) == bool(typed.port):
        rule = "has no ports" if typed.port else "needs a port (TO:PORT/PROTOCOL)"
        raise click.UsageError(f"{typed.protocol} {rule}")
    return typed


def _only(seen: Sequence[Attached], name: str) -> Attached:
    """Returns the one attachment of a name. Of several, those without an interface do not count, and that of the pod's
    own address comes before those of further networks.
    """
    meant = called(seen, name)
    meant = [each for each in meant if each.interface == PRESENT] or meant
    meant = [each for each in meant if each.owner.ifname == POD_INTERFACE] or meant
    if not meant:
        raise click.UsageError(f"no attachment is called {name} (podwire ps lists all)")
    if len(meant) > 1:
        ends = [(each.host_interface or each.netns or "-", f"{each.name} {each.owner.ifname}") for each in meant]
        names = printable(", ".join([f"{end} ({whose})" for end, whose in ends]))
        raise click.UsageError(f"{name} names several attachments: give the host interface of one of {names}")
    return meant[0]
