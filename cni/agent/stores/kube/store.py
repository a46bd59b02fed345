"""The Kubernetes store: pod CIDRs and flannel's annotations of nodes, so that nodes of both can share one network.

Three threads: one watches nodes, one looks at the network's configuration, one keeps the annotations of the own node. A
lease is the pod CIDR of a node, and lasts as long as the node.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from cni.agent.model.events import Changed, Configured, Held, Listed
from cni.agent.model.leaseformat import lease_format
from cni.agent.model.network import parse_network_config
from cni.agent.stores.kube.client import Api, log
from cni.agent.stores.kube.config import access_of
from cni.agent.stores.kube.errors import ApiError
from cni.agent.stores.kube.nodes import (
    CONDITION,
    MESSAGE,
    REASON,
    NodeNotUsable,
    OwnNode,
    annotations_of,
    known_lease,
    names_of,
    override_ips,
    own_node,
    own_subnets,
    peer,
)
from cni.agent.stores.kube.resource import NODES
from cni.agent.stores.kube.watch import ResourceWatcher, WatchHandler
from cni.agent.stores.watchfile import FileWatch
from cni.agent.stores.watchloop import Backoff
from cni.agent.stores.worker import WATCH, StoreWorker
from cni.protocol import smallfile
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.model.lease import Lease, Node
    from cni.agent.model.network import NetworkConfig
    from cni.agent.stores.kube.options import KubeOptions
    from cni.agent.stores.kube.resource import Json, Key, Resource
    from cni.protocol.address import Net

    ParsedNode = OwnNode | Lease | str | None

CALM = 1.0  # seconds between two writes: nodes that fight over annotations do it slowly
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # after a write that failed
FILE, NODE = "file", "node"  # parts that may fail
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
NONSENSE = "malformed node object"


class DesiredNode(Record):
    """The network that the own node has to fit, what it has to say, and how it is."""

    config: NetworkConfig
    node: Node
    own: OwnNode
    ready: bool


class NodeList:
    """A list of nodes, of which only what `parse` returns is kept; `listed` gets all at its end."""

    def __init__(
        self, parse: Callable[[Key, Json], ParsedNode], listed: Callable[[dict[Key, ParsedNode]], None]
    ) -> None:
        self._parse, self._listed = parse, listed
        self._nodes: dict[Key, ParsedNode] = {}

    def add(self, key: Key, item: Json) -> None:
        self._nodes[key] = self._parse(key, item)

    def end(self) -> None:
        self._listed(self._nodes)


class KubeStore(StoreWorker[DesiredNode]):
    """A store that publishes this node's pod CIDR."""

    def __init__(self, options: KubeOptions) -> None:
        super().__init__("kube", log, Backoff(FIRST_PAUSE, LONGEST_PAUSE))
        self._options, self._names = options, names_of(options.prefix)
        self._config: NetworkConfig | None = None  # this and the next five with the lock
        self._own: OwnNode | None = None
        self._leases: dict[str, Lease | str] | None = None
        self._configured: Configured | None = None
        self._held: Lease | None = None
        self._ready = False
        self._name = options.node_name  # empty until the API was asked for the pod's node
        self._macs: tuple[bytes | None, ...] = ()  # that the node presented for the lease that is held
        self._announced = ""  # the UID of the node whose condition was set
        self._written = -CALM
        self._api = Api(partial(access_of, options))
        failed = partial(self._fail, WATCH)
        handler = WatchHandler(
            self._prepare, partial(NodeList, self._parse, self._list), self._change, self._connected, failed
        )
        self._watcher = ResourceWatcher(self._api, handler, self._stop)
        self._add_thread("kube-watcher", self._watcher.run)
        file = FileWatch(options.network_file, self._read_config, partial(self._fail, FILE), self._stop)
        self._add_thread("kube-file", file.run)

    def ready(self) -> None:
        """Sets the node's condition, which tells Kubernetes."""
        with self._wake:
            self._ready = True
            self._disturb()

    def _interrupt(self) -> None:
        self._watcher.interrupt()

    def _reconnect(self) -> None:
        self._api.reset_connections()
        self._watcher.interrupt()

    def _read_config(self) -> bool:
        path = self._options.network_file
        config = parse_network_config(smallfile.read(path), path)
        with self._wake:
            self._config = config
            self._succeed(FILE)
            self._review()
        return True

    def _prepare(self) -> Resource:
        """Raises ApiError."""
        if not self._name:
            self._name = self._api.node_of_pod(*self._options.pod)
        return NODES

    def _parse(self, key: Key, node: Json) -> ParsedNode:
        """Returns the own node; of another one its lease, or why it has none, or None if it is not one of flannel's."""
        if key[1] == self._name:
            return self._parse_own(node)
        try:
            return peer(node, self._names)
        except MALFORMED:
            return NONSENSE

    def _parse_own(self, node: Json) -> OwnNode:
        """Raises ApiError."""
        try:
            return own_node(node, self._names)
        except MALFORMED:
            raise ApiError(f'node "{self._name}": {NONSENSE}') from None

    def _list(self, nodes: dict[Key, ParsedNode]) -> None:
        own = nodes.get(("", self._name))
        with self._wake:
            self._leases = {
                name: lease for (_, name), lease in nodes.items() if not (lease is None or isinstance(lease, OwnNode))
            }
            if self._held is not None:
                self._emit(Listed(dict(self._leases)))
            self._own = own if isinstance(own, OwnNode) else None
            self._review()

    def _change(self, key: Key, item: Json | None) -> None:
        """Raises ApiError."""
        node = None if item is None else self._parse(key, item)
        name = key[1]
        if name == self._name or isinstance(node, OwnNode):
            self._change_own(node if isinstance(node, OwnNode) else None)
        else:
            self._change_peer(name, node)

    def _change_own(self, own: OwnNode | None) -> None:
        """Takes the own node, unless it is as it was before our last write."""
        with self._wake:
            if own is not None and self._own is not None and own.is_before(self._own):
                return
            same = own is self._own or (own is not None and own.says_as(self._own))
            self._own = own
            if not same:
                self._review()

    def _change_peer(self, name: str, lease: Lease | str | None) -> None:
        with self._wake:
            if self._leases is None or self._leases.get(name) == lease:
                return
            if lease is None:
                del self._leases[name]
            else:
                self._leases[name] = lease
            if self._held is not None:
                self._emit(Changed({name: lease}))

    def _review(self) -> None:
        """Emits what follows from the file and the own node; with the lock held."""
        if self._config is None or self._leases is None:
            return
        name, own = self._name, self._own
        if own is None:
            self._fail(NODE, f'Kubernetes has no node "{name}": it is not registered yet, or --node-name is wrong')
            return
        try:
            configured = Configured(self._config, override_ips(own, self._names))
            if configured != self._configured:
                self._configured = configured
                self._emit(configured)
            own_subnets(own, name, self._config)
        except NodeNotUsable as error:
            self._fail(NODE, str(error))
        else:
            self._succeed(NODE)
            self._disturb()

    def _desired(self) -> DesiredNode | None:
        config, node, own = self._config, self._node, self._own
        if config is None or node is None or own is None:
            return None
        families = tuple([address.public_ip.family for address in node.addresses])
        vni = lease_format(config.backend.kind).vni(config.backend)
        if (families, node.backend, node.vni) != (config.families, config.backend.kind, vni):
            return None
        return DesiredNode(config, node, own, self._ready)

    def _sync(self, desired: DesiredNode) -> None:
        """Writes only what differs. Raises ApiError."""
        own = desired.own
        try:
            subnets = own_subnets(own, self._name, desired.config)
        except NodeNotUsable:
            return  # was reported
        lease = desired.node.lease(subnets, self._known(desired, subnets))
        annotations = annotations_of(lease, own, self._names)
        if changes := {key: text for key, text in annotations.items() if own.annotations.get(key) != text}:
            self._stop.wait(max(0.0, self._written + CALM - time.monotonic()))
            self._written = time.monotonic()
            log.info("setting annotations of the own node: %s", ", ".join([f"{k}={v}" for k, v in changes.items()]))
            self._patch({"metadata": {"annotations": changes}})
        self._hold(lease, desired.node)
        if desired.ready and self._options.set_network_condition and self._announced != own.uid:
            if not own.available:
                self._patch({"status": {"conditions": [_condition()]}})
            self._announced = own.uid

    def _known(self, desired: DesiredNode, subnets: tuple[Net, ...]) -> Lease | None:
        """Returns the lease that other nodes know: its MAC addresses stay, until the node presents other ones."""
        if self._held is None:
            return known_lease(desired.own, desired.node, subnets, self._names)
        return self._held if self._macs == desired.node.macs else None

    def _patch(self, patch: Json) -> None:
        """Raises ApiError."""
        self._change_own(self._parse_own(self._api.patch_status(self._name, patch)))

    def _hold(self, lease: Lease, node: Node) -> None:
        with self._wake:
            before, self._held, self._macs = self._held, lease, node.macs
            if lease != before:
                self._emit(Held(lease))
            if before is None and self._leases is not None:
                self._emit(Listed(dict(self._leases)))


def _condition() -> Json:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    times = {"lastHeartbeatTime": now, "lastTransitionTime": now}
    return {"type": CONDITION, "status": "False", **times, "reason": REASON, "message": MESSAGE}
