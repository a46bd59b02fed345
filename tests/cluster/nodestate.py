"""The state that attachments leave on a node, compared before and after, or with the pods that Kubernetes has there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.cluster.access import ClusterError, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import Cluster

LEASES = "/var/lib/cni/networks"
_FILES = f"""
find {LEASES} -type f ! -name lock ! -name 'last_reserved_ip*' 2>/dev/null
find /var/lib/cni/flannel /var/lib/cni/results /var/lib/cni/tuning /run/netns -type f 2>/dev/null
true
"""


class State(NamedTuple):
    """`files` are leases and what else outlives a call, `rules` all of podwire's in tables of its own and of others."""

    files: frozenset[str]
    links: frozenset[str]
    rules: frozenset[str]

    @property
    def leases(self) -> set[str]:
        """The addresses, of all networks."""
        return {path.rpartition("/")[2] for path in self.files if path.startswith(LEASES)}

    def without(self, other: State) -> list[str]:
        """Returns the entries that the other state does not have."""
        pairs = zip(self, other, strict=True)
        return sorted(line for mine, others in pairs for line in mine - others)


def state(cluster: Cluster, node: str) -> State:
    links = json.loads(cluster.on(node, "ip", "-j", "-d", "link"))
    kept = {link["ifname"] for link in links if link.get("linkinfo", {}).get("info_kind") in ("veth", "ifb")}
    rules = json.loads(cluster.on(node, "nft", "-j", "list", "ruleset"))["nftables"]
    files = cluster.shell(node, _FILES).split()
    return State(frozenset(files), frozenset(kept), frozenset(_rules(rules)))


def states(cluster: Cluster) -> dict[str, State]:
    return {node.name: state(cluster, node.name) for node in cluster.nodes()}


def wait_for_states(cluster: Cluster, before: dict[str, State]) -> None:
    """Until all nodes are as they were: what a call ended just now may take the kernel a moment."""

    def same() -> bool:
        after = states(cluster)
        changed = {name: after[name].without(before[name]) + before[name].without(after[name]) for name in before}
        if any(changed.values()):
            raise ClusterError(str(changed))
        return True

    until(same, "the nodes are as they were", 120)


def wait_for_leases_of_pods(cluster: Cluster, node: str) -> None:
    """Until every lease of the node is a living pod's, and the reverse, with one pair of interfaces each."""

    def same() -> bool:
        leases, pods = state(cluster, node).leases, cluster.addresses_of_pods(node)
        attached = len(_attached(cluster, node))
        if leases != pods or attached != len(pods):
            raise ClusterError(f"leases {sorted(leases)}, pods {sorted(pods)}, {attached} interfaces")
        return True

    until(same, f"what {node} leases is its pods'")


def _attached(cluster: Cluster, node: str) -> list[str]:
    """The host's ends of pods: other pairs, as a node's own in a container, have no bridge."""
    links = json.loads(cluster.on(node, "ip", "-j", "-d", "link", "show", "type", "veth"))
    return [link["ifname"] for link in links if link.get("master")]


def _rules(items: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each of podwire's rules and elements, without counters and handles."""
    for item in items:
        ((kind, body),) = item.items()
        if kind == "metainfo":
            continue
        text = json.dumps([body.get("comment"), body.get("expr"), body.get("elem")])
        if not (str(body.get("table", body.get("name"))).startswith("podwire") or "podwire" in text):
            continue
        where = f"{body['family']} {body.get('table', '')} {body.get('chain', '')} {body.get('name', '')}"
        if kind in ("set", "map"):
            for element in body.get("elem", ()):
                yield f"element {where} {json.dumps(_still(element), sort_keys=True)}"
        else:
            yield f"{kind} {where} {body.get('comment', '')} {json.dumps(_still(body.get('expr')), sort_keys=True)}"


def _still(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _still(item) for key, item in value.items() if key not in ("packets", "bytes", "expires")}
    return [_still(item) for item in value] if isinstance(value, list) else value
