"""A cluster as a map: all nodes of podwired's store, from its answer to the question `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.protocol.record import Record

if TYPE_CHECKING:
    Json = dict[str, Any]

OWN, REFUSED = "this node", "refused"  # states beside those of podwired's answer
REACHED = (OWN, "vxlan", "direct")


class ClusterNode(Record):
    """A node. `state` is OWN, REFUSED or podwired's (vxlan, direct, unreachable, failed); `ways` is empty for the own
    node; `lacks` names the entries that the kernel has not; `reason` says why a lease is refused.
    """

    name: str
    state: str
    subnets: tuple[str, ...] = ()
    public_ips: tuple[str, ...] = ()
    ways: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    reason: str = ""

    @property
    def is_reachable(self) -> bool:
        return self.state in REACHED


class ClusterMap(Record):
    """The network and its nodes, the own one first. `backend` and `networks` are empty until podwired knows them."""

    backend: str
    networks: tuple[str, ...]
    details: str
    nodes: tuple[ClusterNode, ...]


def cluster_map(answer: Json) -> ClusterMap:
    """Returns the map of podwired's answer."""
    network = answer["network"] or {"backend": "", "networks": []}
    lease = answer["lease"] or {"subnets": [], "public_ips": []}
    own = ClusterNode(answer["node"], OWN, tuple(lease["subnets"]), tuple(lease["public_ips"]))
    refused = [ClusterNode(each["key"], REFUSED, reason=each["reason"]) for each in answer["refused"]]
    details = f"VNI {network['vni']}, UDP port {network['port']}" if "vni" in network else ""
    nodes = (own, *map(_peer, answer["peers"]), *refused)
    return ClusterMap(network["backend"], tuple(network["networks"]), details, nodes)


def _peer(peer: Json) -> ClusterNode:
    endpoints = peer["endpoints"]
    missing = [name for each in endpoints for name, is_there in each["applied"].items() if not is_there]
    return ClusterNode(
        peer.get("name") or peer["key"],
        peer["state"],
        tuple([each["subnet"] for each in endpoints]),
        tuple([each["public_ip"] for each in endpoints]),
        tuple(dict.fromkeys([each["way"] for each in endpoints if each["way"]])),
        tuple(dict.fromkeys(missing)),
    )
