"""The peers that podwired has a route to, and how findings name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni.diag.ailments.attachments import some
from cni.diag.node.attachments import PRESENT
from cni.diag.node.links import OVERHEAD
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.ailments.ailment import NodeView
    from cni.protocol.address import IP

    Json = dict[str, Any]

UNREACHED = "pods of these nodes are not reached"  # the consequence


class Peer(Record):
    """A node's subnet. `target` answers for it: its tunnel's address, which is the subnet's first one, or with direct
    routes the node's own, `public_ip`; `own_ip` is this node's. `device` is the interface that leads there, `underlay`
    that below it; `port` and `overhead` are those of a tunnel, else 0; `size` is the longest packet that pods send, in
    bytes.
    """

    name: str
    own_ip: IP
    public_ip: IP
    target: IP
    device: str
    underlay: str
    port: int
    overhead: int
    size: int


def peer_name(peer: Json) -> str:
    """Returns the node's name, where the store has none the key of its lease."""
    return str(peer.get("name") or peer["key"])


def served_peers(node: NodeView) -> Sequence[Json]:
    return node.agent.get("peers", ()) if node.agent is not None else ()


def routed_peers(node: NodeView) -> Iterator[Peer]:
    """Yields the peers that have routes, but for those behind an interface that is down, as this is the cause."""
    agent = node.agent or {}
    links = {link.name: link for link in node.links}
    names = {link.ifindex: link.name for link in node.links}
    uplink = links.get((agent.get("uplink") or {}).get("interface", ""))
    tunnels = [links[each["device"]] for each in agent.get("tunnels", ()) if each["device"] in links]
    tunnel_of = {link.tunnel.family: link for link in tunnels if link.tunnel is not None and link.up}
    hosts = {each.host_interface for each in node.attached if each.interface == PRESENT}
    largest = max([link.mtu for link in node.links if link.name in hosts], default=0)
    own = {ip.family: ip for ip in map(parse_ip, (agent.get("lease") or {}).get("public_ips", ()))}
    if uplink is None or not uplink.up:
        return
    for peer in served_peers(node):
        for endpoint in peer["endpoints"]:
            subnet, public_ip = parse_net(endpoint["subnet"]), parse_ip(endpoint["public_ip"])
            link, own_ip = tunnel_of.get(subnet.family), own.get(public_ip.family, public_ip)
            ends = peer_name(peer), own_ip, public_ip
            if endpoint["way"] == "direct":
                size = min(uplink.mtu, largest or uplink.mtu)
                yield Peer(*ends, public_ip, uplink.name, uplink.name, 0, 0, size)
            elif endpoint["way"] == "vxlan" and link is not None and link.tunnel is not None:
                below = names.get(link.tunnel.underlay, uplink.name)
                size = min(link.mtu, largest or link.mtu)
                overhead = OVERHEAD[link.tunnel.family]
                yield Peer(*ends, subnet.ip, link.name, below, link.tunnel.port, overhead, size)


def names_of(peers: Sequence[Peer]) -> str:
    addresses: dict[str, list[str]] = {}
    for peer in peers:
        addresses.setdefault(peer.name, []).append(peer.public_ip.text)
    return some([f"{name} ({', '.join(texts)})" for name, texts in addresses.items()])


def devices_of(peers: Sequence[Peer]) -> str:
    return " and ".join(sorted({peer.device for peer in peers}))


def share_of(peers: Sequence[Peer], total: int) -> str:
    return f"{len({peer.name for peer in peers})} of {total} peers"


def are_all(peers: Sequence[Peer], total: int) -> bool:
    """Returns True if several peers fail alike, and none does not: the cause is on this node."""
    return len({peer.name for peer in peers}) == total > 1
