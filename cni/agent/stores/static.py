"""The static store: a file that tells all nodes, the same on each; it needs nothing else.

The network's configuration with one key more, `nodes`: a list of {"name", "PublicIP", "Subnet", "PublicIPv6",
"IPv6Subnet", "VtepMAC"}. Without VtepMAC a node's is derived from its address, so that nodes agree without talking.
"""

from __future__ import annotations

import os
from threading import Event, Thread
from typing import TYPE_CHECKING

from cni.agent.leases import Lease, Way, derived_mac
from cni.agent.logs import log
from cni.agent.network import VXLAN, NetworkConfig, read_network
from cni.agent.stores.store import Configured, Failed, Held, Listed
from cni.spec.errors import CniError, chain
from cni.spec.fields import Faults, Fields
from cni.spec.jsontext import parse_object
from cni.spec.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.leases import Node
    from cni.agent.stores.store import News
    from cni.spec.address import IP

LOOK_SECONDS = 1.0


class Entry(Record):
    """One node of the file."""

    name: str
    lease: Lease


class Nodes(Record):
    config: NetworkConfig
    entries: tuple[Entry, ...]

    def own(self, name: str, addresses: set[IP]) -> Entry | None:
        """The entry of the node with this name, else of that with one of these addresses."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        mine = [one for one in self.entries if any(way.public_ip in addresses for way in one.lease.ways)]
        return mine[0] if mine else None

    def leases(self) -> dict[str, Lease | str]:
        """By key; where two nodes have the same subnet, that of the later one bears its name as well."""
        found: dict[str, Lease | str] = {}
        for entry in self.entries:
            key = entry.lease.key
            found[key if key not in found else f"{key} of {entry.name}"] = entry.lease
        return found


def parse_nodes(data: bytes, what: str) -> Nodes:
    """Raises Undecodable, InvalidConfig naming every fault with its JSON path."""
    faults = Faults()
    fields = Fields(parse_object(data, what), "", faults)
    config = read_network(fields)
    entries = [_entry(one, config) for one in fields.objects("nodes")]
    names = [entry.name for entry in entries]
    for name in sorted({name for name in names if names.count(name) > 1}):
        fields.fault("nodes", f"{name!r} is there more than once")
    faults.refuse()
    return Nodes(config, tuple(entries))


def _entry(fields: Fields, config: NetworkConfig) -> Entry:
    name = fields.text("name")
    if not name:
        fields.fault("name", "missing")
    mac, vni, ways = fields.mac("VtepMAC"), config.backend.vni, []
    for family in config.families:
        ip_key, subnet_key = ("PublicIP", "Subnet") if family == 4 else ("PublicIPv6", "IPv6Subnet")
        ip, subnet = fields.ip(ip_key), fields.net(subnet_key)
        for key, value in ((ip_key, ip), (subnet_key, subnet)):
            if value is None or value.family != family:
                fields.fault(key, f"has to be of IPv{family}" if value is not None else "missing")
        if ip is None or subnet is None or not ip.family == subnet.family == family:
            continue
        if subnet != subnet.network:
            fields.fault(subnet_key, f"{subnet.text} has bits behind its prefix, is it {subnet.network.text}?")
        elif fault := config.fault_of(subnet):
            fields.fault(subnet_key, fault)
        vtep = (mac or derived_mac(ip, vni)) if config.backend.kind == VXLAN else None
        way = Way(subnet, ip, vtep)
        if not way.is_reachable:
            fields.fault(ip_key, f"{ip.text} is no address of a node")
        ways.append(way)
    return Entry(name, Lease(tuple(ways), config.backend.kind, vni if config.backend.kind == VXLAN else 0))


class StaticStore:
    """Looks at the file once a second; what is wrong with it is told, and what it said before stays."""

    def __init__(self, path: str, name: str, addresses: Callable[[], set[IP]]) -> None:
        """`addresses` tells those of this host, whenever it is asked."""
        self._path, self._name, self._addresses = path, name, addresses
        self._wake = Event()
        self._presented = self._closed = False
        self._seen: object = None
        self._untold: list[News] = []  # until the node is presented

    def start(self, tell: Callable[[News], None]) -> None:
        Thread(target=self._look, args=(tell,), name="nodes-file", daemon=True).start()

    def present(self, node: Node) -> None:
        """The file says it all."""
        del node
        self._presented = True
        self._wake.set()

    def ready(self) -> None:
        """Nobody reads the file for that."""

    def close(self) -> None:
        self._closed = True
        self._wake.set()

    def _look(self, tell: Callable[[News], None]) -> None:
        while not self._closed:
            try:
                self._read_changes(tell)
            except Exception as error:  # noqa: BLE001  # whatever it is, the file may be readable a moment later
                self._seen = None
                self._fail(tell, f"{self._path}: {chain(error)}")
            while self._presented and self._untold:
                tell(self._untold.pop(0))
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()

    def _read_changes(self, tell: Callable[[News], None]) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            with open(self._path, "rb") as file:
                nodes = parse_nodes(file.read(), self._path)
        except (OSError, CniError) as error:
            why = error.message if isinstance(error, CniError) else chain(error)
            self._fail(tell, why if self._path in why else f"{self._path}: {why}")
            return
        own = nodes.own(self._name, self._addresses())
        if own is None:
            self._seen = None  # that may change without the file
            self._fail(tell, f"{self._path} has no node named {self._name!r}, and none with an address of this host")
            return
        tell(Configured(nodes.config, tuple([way.public_ip for way in own.lease.ways])))
        self._untold = [Held(own.lease), Listed(nodes.leases())]

    def _state(self) -> object:
        try:
            found = os.stat(self._path)
        except OSError as error:
            return error.errno
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _fail(self, tell: Callable[[News], None], why: str) -> None:
        log.error("%s; what was told before stays", why)
        tell(Failed(why))
