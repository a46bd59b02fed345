"""The figure of a map: cards of a few lines of text in sections. What draws it knows nothing of networks.

All text that others have written is made printable and bounded here; who draws escapes it for its own format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from cni.diag.drawing.clustermap import OWN
from cni.diag.node.attachments import FOREIGN, GONE
from cni.diag.output import printable
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.diag.drawing.clustermap import ClusterMap, ClusterNode
    from cni.diag.drawing.nodemap import Bridge, Interface, NodeMap, Peer, Port, Tunnel
    from cni.diag.node.attachments import Attached

TITLE, PLAIN, DIM, BAD = "title", "plain", "dim", "bad"  # tones of a line
NODE, CLUSTER, UPLINK, TUNNEL, BRIDGE, POD, OTHER = "node", "cluster", "uplink", "tunnel", "bridge", "pod", "other"
LONGEST = 330  # characters of a text: a namespace of 63 and a name of 253 are whole
PORTS = 8  # of a pod
OBVIOUS = ("bridge", "vxlan")  # kinds that the label of a card says


class Line(Record):
    """A line of a card; `tone` is TITLE, PLAIN, DIM or BAD."""

    text: str
    tone: str = PLAIN


class Card(Record):
    """A thing; `kind` is NODE, ... or OTHER, `label` says what it is, for the heads of sections."""

    kind: str
    lines: tuple[Line, ...]
    label: str = ""

    @property
    def is_bad(self) -> bool:
        return any(line.tone == BAD for line in self.lines)


class Section(Record):
    """A thing of the node, and what is connected to it."""

    head: Card
    members: tuple[Card, ...]


class Figure(Record):
    """A node and its sections."""

    root: Card
    sections: tuple[Section, ...]


def figure(node: NodeMap, cluster: ClusterMap | None) -> Figure:
    """Returns the figure of a node, with its cluster where that is known."""
    return Figure(_root(node, cluster), tuple(_sections(node, cluster)))


def _sections(node: NodeMap, cluster: ClusterMap | None) -> Iterator[Section]:
    names: dict[str, str] = {}  # of nodes, by subnet
    if cluster is not None:
        yield Section(_cluster(cluster), tuple(map(_cluster_node, cluster.nodes)))
        names = {subnet: each.name for each in cluster.nodes for subnet in each.subnets}
    for uplink in node.uplinks:
        yield Section(_card(UPLINK, uplink.device.name, _interface(uplink), "uplink"), tuple(_behind(uplink, names)))
    for tunnel in node.tunnels:
        yield Section(_tunnel(tunnel), tuple([_peer(peer, names) for peer in tunnel.peers]))
    for bridge in node.bridges:
        yield Section(_bridge(bridge), (*_behind(bridge.interface, names), *map(_port, bridge.ports)))
    for title, members in (
        ("routed pods", [*map(_port, node.routed)]),
        ("pods without a host interface", [_pod(each) for each in node.elsewhere]),
        ("other interfaces", [_card(OTHER, each.device.name, _interface(each, used=False)) for each in node.others]),
    ):
        if members:
            yield Section(_card(members[0].kind, title, ()), tuple(members))


def _root(node: NodeMap, cluster: ClusterMap | None) -> Card:
    lines = []
    for network in node.networks:
        file = network.path.rpartition("/")[2]
        lines.append(
            Line(f"{file}: {network.error}", BAD) if network.error else Line(f"network {network.name} ({file})")
        )
    own = cluster.nodes[0] if cluster is not None else None
    subnets = [Line(", ".join(own.subnets))] if own is not None and own.subnets else []
    return _card(NODE, node.name, [*subnets, *lines], "node")


def _cluster(cluster: ClusterMap) -> Card:
    by = f"{', '.join(cluster.networks)} by {cluster.backend}" if cluster.backend else "network is not known yet"
    counts = [f"{len(cluster.nodes)} nodes"]
    if away := sum(not each.is_reachable for each in cluster.nodes):
        counts.append(f"{away} not reachable")
    return _card(CLUSTER, by, [Line(cluster.details, DIM), Line(", ".join(counts), BAD if away else PLAIN)], "cluster")


def _cluster_node(node: ClusterNode) -> Card:
    lines = [Line(", ".join(node.subnets)), Line(", ".join(node.public_ips), DIM)]
    if node.state == OWN:
        lines.append(Line(OWN, DIM))
    elif node.is_reachable:
        lines.append(Line(f"reachable: {', '.join(node.ways)}"))
    else:
        lacks = f", lacks {', '.join(node.lacks)}" if node.lacks else ""
        lines.append(Line(f"{node.state}{lacks}" + (f": {node.reason}" if node.reason else ""), BAD))
    return _card(CLUSTER, node.name, lines)


def _interface(interface: Interface, *, used: bool = True) -> Iterator[Line]:
    """Yields the lines of an interface; one that nothing uses may be down."""
    device = interface.device
    yield Line(", ".join(interface.addresses))
    kind = device.kind if device.kind not in OBVIOUS else ""
    vlan = f"VLAN {device.vlan}" if device.vlan else ""
    yield Line(", ".join([part for part in (kind, vlan, f"MTU {device.mtu}") if part]), DIM)
    yield Line(device.alias, DIM)
    if not device.up:
        yield Line("down", BAD if used else DIM)


def _behind(interface: Interface, names: dict[str, str]) -> Iterator[Card]:
    for gateway in interface.gateways:
        yield _card(UPLINK, gateway, [Line("gateway of the default route", DIM)])
    for subnet, gateway in interface.direct:
        name = names.get(subnet, "")
        yield _card(UPLINK, name or subnet, [Line(subnet if name else ""), Line(f"directly by {gateway}", DIM)])


def _tunnel(tunnel: Tunnel) -> Card:
    device = tunnel.interface.device
    via = " ".join([part for part in (tunnel.underlay, device.local) if part])
    lines = [
        Line(f"VNI {device.vni}, UDP port {device.port}"),
        Line(f"by {via}" if via else "", DIM),
        *_interface(tunnel.interface),
    ]
    return _card(TUNNEL, device.name, lines, "tunnel")


def _peer(peer: Peer, names: dict[str, str]) -> Card:
    name = next((names[subnet] for subnet in peer.subnets if subnet in names), "")
    titles = [*([name] if name else []), *peer.subnets, *([] if peer.subnets else [peer.mac])]
    lines = [*map(Line, titles[1:]), Line(f"by {peer.public_ip}" if peer.public_ip else "")]
    lines += [Line(peer.mac if peer.subnets else "", DIM), *[Line(f"lacks {name}", BAD) for name in peer.lacks]]
    return _card(TUNNEL, titles[0], lines)


def _bridge(bridge: Bridge) -> Card:
    pods = [port.attached for port in bridge.ports if port.attached is not None]
    networks = dict.fromkeys([pod.owner.network for pod in pods])
    shown = [Line(f"network{'s' if len(networks) > 1 else ''} {', '.join(networks)}")] if networks else []
    count = Line("1 pod" if len(pods) == 1 else f"{len(pods)} pods")
    lines = [*_interface(bridge.interface, used=bool(pods)), *shown, count]
    return _card(BRIDGE, bridge.interface.device.name, lines, "bridge")


def _port(port: Port) -> Card:
    vlans = Line(f"VLAN {', '.join(port.vlans)}" if port.vlans else "")
    down = [] if port.device.up else [Line(f"{port.device.name} is down", BAD)]
    if port.attached is not None:
        return _pod(port.attached, (vlans, *down))
    if port.gateway is not None:
        lines = [Line(", ".join(port.gateway.addresses)), vlans, Line(f"gateway by port {port.device.name}", DIM)]
        return _card(OTHER, port.gateway.device.name, [*lines, *down])
    return _card(OTHER, port.device.name, [vlans, Line(port.device.kind, DIM), Line(port.device.alias, DIM), *down])


def _pod(attached: Attached, more: Iterable[Line] = ()) -> Card:
    network, _, ifname = attached.owner
    by = f", by {attached.program}" if attached.made_by == FOREIGN and attached.program else ""
    behind = f" behind {attached.host_interface}" if attached.host_interface else ""
    ports = attached.ports[:PORTS]
    left_out = len(attached.ports) - len(ports)
    lines = [*map(Line, attached.addresses), *map(Line, ports), Line(f"and {left_out} more ports" if left_out else "")]
    lines += [*more, Line(f"{ifname} ({network}){behind}{by}", DIM)]
    if attached.interface == GONE:
        lines.append(Line("its interface is gone", BAD))
    return _card(POD, attached.name, lines)


def _card(kind: str, title: str, lines: Iterable[Line], label: str = "") -> Card:
    """Returns a card without its empty lines."""
    every = [Line(title, TITLE), *[line for line in lines if line.text]]
    return Card(kind, tuple([Line(bounded(line.text), line.tone) for line in every]), label)


def bounded(text: str) -> str:
    """Returns a text that is no longer than LONGEST, without control characters, and without any that would be drawn
    over others.
    """
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return "".join(
        [letter if cell_len(letter) else letter.encode("unicode_escape").decode() for letter in printable(cut)]
    )
