"""The static store: a file that lists all nodes, the same on each; it needs nothing else.

The network's configuration with one key more, `nodes`: a list of {"name", "PublicIP", "Subnet", "PublicIPv6",
"IPv6Subnet", "VtepMAC"}. Without VtepMAC a node's is derived from its address, so that nodes agree without traffic.
An invalid entry affects no other one, and its node stays as it was.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cni.agent.logs import log
from cni.agent.model.events import Configured, Failed, Held, Listed, Recovered, StoreEvent
from cni.agent.model.lease import Endpoint, Lease
from cni.agent.model.leaseformat import lease_format
from cni.agent.model.network import NetworkConfig, read_network
from cni.agent.stores.watchfile import FileWatch
from cni.agent.stores.worker import EventSource
from cni.protocol import smallfile
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.jsontext import parse_object
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cni.agent.model.lease import Node
    from cni.protocol.address import IP, Net

LARGEST = 16 << 20  # bytes: 50,000 nodes
MOST_LOGGED = 20  # errors of entries, each a line; and names of nodes
FILE = "file"  # the part that may fail


class Entry(Record):
    """A node of the file."""

    name: str
    lease: Lease


class Nodes(Record):
    """The file's content. `errors` by the entry's name, or by its path if it has none; `shared` by name, the same for
    nodes that share a subnet.
    """

    config: NetworkConfig
    entries: tuple[Entry, ...]
    errors: Mapping[str, str]
    shared: Mapping[str, str]

    def settled(self, before: Mapping[str, Lease]) -> dict[str, Lease | str]:
        """Returns leases by node name; an invalid node, or one with another's subnet, keeps its last good lease."""
        current: dict[str, Lease | str] = {**self.errors, **{entry.name: entry.lease for entry in self.entries}}
        return {**current, **{name: before[name] for name in (*self.errors, *self.shared) if name in before}}

    def sound(self) -> dict[str, Lease]:
        """Returns the valid leases by node name."""
        return {entry.name: entry.lease for entry in self.entries if entry.name not in self.shared}


def by_key(leases: Mapping[str, Lease | str], first: Iterable[str]) -> dict[str, Lease | str]:
    """Returns leases by key; of two nodes with one subnet, the later's key bears its name. `first` come first."""
    keyed: dict[str, Lease | str] = {}
    for name in dict.fromkeys([*first, *leases]):
        lease = leases.get(name)
        if isinstance(lease, Lease):
            keyed[lease.key if lease.key not in keyed else f"{lease.key} of {name}"] = lease
        elif lease is not None:
            keyed[name] = lease
    return keyed


def parse_nodes(data: bytes, path: str) -> Nodes:
    """Returns the file's content. Raises DecodingFailure, InvalidConfig (all errors of the network by path)."""
    errors = ConfigErrors()
    fields = Fields(parse_object(data, path), "", errors)
    config = read_network(fields)
    items = fields.items("nodes")
    errors.raise_if_any()
    valid: list[Entry] = []
    invalid: dict[str, str] = {}
    for index, item in enumerate(items):
        place, own = f"nodes[{index}]", ConfigErrors()
        entry = _entry(Fields(item if isinstance(item, dict) else {}, place, own), config)
        if not isinstance(item, dict):
            invalid[place] = f"{place}: expected an object"
        elif own.messages:
            invalid[entry.name or place] = "; ".join(own.messages)
        else:
            valid.append(entry)
    for name, count in Counter([entry.name for entry in valid] + [*invalid]).items():
        if count > 1:
            invalid[name] = f"nodes: duplicate name {name!r}"
    entries = tuple([entry for entry in valid if entry.name not in invalid])
    return Nodes(config, entries, invalid, _shared(entries))


def _entry(fields: Fields, config: NetworkConfig) -> Entry:
    name = fields.text("name")
    if not name:
        fields.error("name", "missing")
    parts = lease_format(config.backend.kind)
    mac, vni, endpoints = fields.mac("VtepMAC"), parts.vni(config.backend), []
    for family in config.families:
        ip_key, subnet_key = ("PublicIP", "Subnet") if family == 4 else ("PublicIPv6", "IPv6Subnet")
        ip, subnet = fields.ip(ip_key), fields.net(subnet_key)
        for key, value in ((ip_key, ip), (subnet_key, subnet)):
            if value is not None and value.family != family:
                fields.error(key, f"expected IPv{family}")
            elif value is None and fields.raw(key) in (None, ""):
                fields.error(key, "missing")
        if ip is None or subnet is None or not ip.family == subnet.family == family:
            continue
        if subnet != subnet.network:
            fields.error(subnet_key, f"{subnet.text} has host bits set (did you mean {subnet.network.text}?)")
        elif error := config.error_of(subnet):
            fields.error(subnet_key, error)
        derived = parts.vtep_mac(ip, vni)
        vtep = mac or derived if derived is not None else None
        endpoint = Endpoint(subnet, ip, vtep)
        if not endpoint.is_reachable:
            fields.error(ip_key, f"{ip.text} is not an address of a node")
        endpoints.append(endpoint)
    return Entry(name, Lease(tuple(endpoints), config.backend.kind, vni, name=name))


def _shared(entries: Iterable[Entry]) -> dict[str, str]:
    """Returns an error by name for each entry whose subnet overlaps another one's."""
    placed = sorted((*subnet, entry.name, subnet) for entry in entries for subnet in entry.lease.subnets)
    shared: dict[str, str] = {}
    outer: tuple[str, Net] | None = None
    for *_, name, subnet in placed:
        if outer is None or not outer[1].contains(subnet.ip):
            outer = name, subnet
        else:
            text = f"nodes: {outer[0]!r} and {name!r} have the same subnet {subnet.text}"
            shared |= {outer[0]: text, name: text}
    return shared


class StaticStore(EventSource[StoreEvent]):
    """A store that reads a file; an error of it is reported, and what was read before stays."""

    def __init__(self, path: str, name: str, host: str, addresses: Callable[[], set[IP]]) -> None:
        """`name`: this node's as the user has given it, if at all; else it is the node named `host`, or the one with an
        address of this host, which `addresses` returns at any time.
        """
        super().__init__(log, Failed, Recovered())
        self._path, self._name, self._host, self._addresses = path, name, host, addresses
        self._presented = False
        self._good: dict[str, Lease] = {}  # by name, as they were emitted last without an error
        self._pending: tuple[StoreEvent, ...] = ()  # until the node is presented
        self._add_thread("nodes-file", FileWatch(path, self._read, self._reject, self._stop).run)

    def register(self, node: Node) -> None:
        """Emits the leases: the file has all of them."""
        del node
        with self._wake:
            self._presented = True
            self._emit_pending()

    def ready(self) -> None:
        """Does nothing: no other node reads it."""

    def _read(self) -> bool:
        nodes = parse_nodes(smallfile.read(self._path, LARGEST), self._path)
        leases = nodes.settled(self._good)
        own = self._own(leases)
        if not isinstance(own, Lease):
            self._reject(own)
            return False  # that may change without the file
        self._log_errors(nodes)
        listed = by_key(leases, [name for name in nodes.shared if name in self._good])
        self._good |= nodes.sound()
        self._good = {name: lease for name, lease in self._good.items() if name in leases}
        with self._wake:
            self._succeed(FILE)
            self._pending = ()  # replaced by the next
            self._emit(Configured(nodes.config, tuple([endpoint.public_ip for endpoint in own.endpoints])))
            self._pending = (Held(own), Listed(listed))
            if self._presented:
                self._emit_pending()
        return True

    def _emit_pending(self) -> None:
        pending, self._pending = self._pending, ()
        for event in pending:
            self._emit(event)

    def _own(self, leases: Mapping[str, Lease | str]) -> Lease | str:
        """Returns the lease of this node, or why it has none."""
        lease = leases.get(self._name or self._host)
        if lease is None and not self._name:
            addresses = self._addresses()
            sound = [lease for lease in leases.values() if isinstance(lease, Lease)]
            lease = next((x for x in sound if any(endpoint.public_ip in addresses for endpoint in x.endpoints)), None)
        if isinstance(lease, str):
            return f"{self._path}: {lease}"
        if lease is not None:
            return lease
        if self._name:
            names = ", ".join([*leases][:MOST_LOGGED]) or "none"
            return f"{self._path} has no node named {self._name!r}, as --node-name or NODE_NAME says; it has {names}"
        return f"{self._path} has no node named {self._host!r}, and none with an address of this host (--node-name)"

    def _log_errors(self, nodes: Nodes) -> None:
        texts = [*dict.fromkeys([*nodes.errors.values(), *nodes.shared.values()])]
        for text in texts[:MOST_LOGGED]:
            log.error("%s: %s", self._path, text)
        if len(texts) > MOST_LOGGED:
            log.error("%s: %d more errors", self._path, len(texts) - MOST_LOGGED)

    def _reject(self, reason: str) -> None:
        self._fail(FILE, f"{reason}; keeping what was read before" if self._good else reason)
