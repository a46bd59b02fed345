"""Nodes of the cluster, and the selectors that ask for the addresses of some.

There are few selectors, and nodes change seldom: what a change means is found by looking at all nodes once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.jsonobject import raise_if_any, read_object
from cni.agent.policy.objects import NAME_LIMIT
from cni.protocol.address import parse_ip
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.agent.policy.jsonobject import JsonObject, Labels
    from cni.agent.policy.objects import NodePeer
    from cni.protocol.jsontext import JsonValue


class Node(Record):
    """A node with all its addresses, 4 or 16 bytes each."""

    name: str
    labels: Labels
    addresses: tuple[bytes, ...]


class Nodes:
    """The nodes that are known, and the addresses of those that a peer selects, for each that is in use."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._users: dict[NodePeer, int] = {}
        self._members: dict[NodePeer, set[bytes]] = {}
        self._changed = False

    def put(self, node: Node) -> None:
        self._nodes[node.name] = node
        self._changed = True

    def remove(self, name: str) -> None:
        self._nodes.pop(name, None)
        self._changed = True

    def labels_at(self, address: bytes) -> list[Labels]:
        """Returns the labels of the nodes that have an address."""
        return [node.labels for node in self._nodes.values() if address in node.addresses]

    def use(self, peer: NodePeer) -> list[bytes]:
        """Returns the addresses of the nodes that are selected; from now on `take` tells what changes."""
        self._users[peer] = self._users.get(peer, 0) + 1
        if peer not in self._members:
            self._members[peer] = self._selected(peer)
        return [*self._members[peer]]

    def release(self, peer: NodePeer) -> None:
        self._users[peer] -= 1
        if not self._users[peer]:
            del self._users[peer], self._members[peer]

    def take(self) -> dict[NodePeer, dict[bytes, bool]]:
        """Returns the addresses that peers in use have gained (True) or lost since the call before."""
        if not self._changed:
            return {}
        self._changed = False
        changes = {}
        for peer, before in self._members.items():
            self._members[peer] = after = self._selected(peer)
            changes[peer] = {address: address in after for address in before ^ after}
        return changes

    def _selected(self, peer: NodePeer) -> set[bytes]:
        selected = [node for node in self._nodes.values() if peer.nodes.matches(dict(node.labels))]
        return {address for node in selected for address in node.addresses}


def parse_node(value: JsonValue) -> Node:
    """Returns a Node. Raises Invalid."""
    fields = read_object(value)
    metadata, status = fields.object("metadata"), fields.object("status")
    name, labels = metadata.name("name", "", NAME_LIMIT), metadata.labels("labels")
    addresses = [address for entry in status.objects("addresses") for address in _addresses(entry)]
    raise_if_any(fields.errors)
    return Node(name, labels, tuple(dict.fromkeys(addresses)))


def _addresses(entry: JsonObject) -> Iterator[bytes]:
    """Yields the address of an entry: names of hosts, which stand among them, are left out."""
    try:
        yield parse_ip(entry.text("address")).packed
    except ValueError:
        return
