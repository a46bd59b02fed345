"""Tests of the drawing of a node: how the kernel's state becomes a map, and that a drawing is whole and legible."""

from __future__ import annotations

import re
from itertools import combinations
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("rich", reason="it measures text (pip install rich)")
pytest.importorskip("click", reason="the command line is made with it (pip install click)")

from cni.diag.drawing.clustermap import ClusterMap, ClusterNode, cluster_map
from cni.diag.drawing.figure import LONGEST, figure
from cni.diag.drawing.layout import CELL, COLUMNS, LINE, PAD, layout, wrapped
from cni.diag.drawing.nodemap import NodeMap, node_map
from cni.diag.drawing.page import page
from cni.diag.drawing.svg import svg
from cni.diag.node.attachments import GONE, OWN, PRESENT, Attached
from cni.diag.node.conflists import Network
from cni.diag.node.devices import Device, KernelState, Route, vlan_ranges
from cni.protocol.owner import Owner
from tests.unit.test_diag_status import ANSWER

if TYPE_CHECKING:
    from cni.diag.drawing.layout import Box

EVIL = "<script>alert(1)</script>\"'&\x1b[2J\x00\u202e\u0301]]>"
BRIDGE, UPLINK, TUNNEL, POD = 10, 20, 30, 100  # indexes of interfaces; of the first pod
EMPTY = KernelState((), {}, {}, {}, {}, {})


def device(ifindex: int, name: str, kind: str = "", **more: Any) -> Device:
    return Device(ifindex, name, kind, more.pop("alias", ""), more.pop("up", True), 1500, "", **more)


def attached(name: str, number: int = 0, **more: Any) -> Attached:
    members: dict[str, Any] = {
        "owner": Owner("net", f"{number:064x}", "eth0"), "pod": name, "program": "podwire", "made_by": OWN,
        "addresses": (f"10.1.{number // 250}.{number % 250}/24",), "host_interface": f"veth{number}",
        "interface": PRESENT, "ports": (), "limits": (), "netns": "", "since": 0.0, "kept": None,
    }  # fmt: skip
    return Attached(**(members | more))


def node_with(pods: list[Attached]) -> NodeMap:
    """Returns a node with a bridge, whose ports are those of pods, an uplink, and a tunnel to a peer."""
    devices = [device(1, "lo"), device(BRIDGE, "cni0", "bridge"), device(UPLINK, "eth0"), device(9, "ifb0", "ifb")]
    devices += [device(TUNNEL, "flannel.1", "vxlan", parent=UPLINK, vni=1, port=8472, local="192.0.2.1")]
    devices += [
        device(POD + number, pod.host_interface, "veth", master=BRIDGE)
        for number, pod in enumerate(pods)
        if pod.interface == PRESENT
    ]
    routes = {UPLINK: [Route("", "192.0.2.254", 4)], TUNNEL: [Route("10.5.2.0/24", "10.5.2.0", 80)]}
    state = EMPTY._replace(
        devices=tuple(devices),
        addresses={BRIDGE: ["10.1.0.1/24"], UPLINK: ["192.0.2.1/24"]},
        routes=routes,
        neighbours={(TUNNEL, "10.5.2.0"): "02:00:00:00:00:02"},
        fdb={(TUNNEL, "02:00:00:00:00:02"): "192.0.2.2"},
    )
    return node_map("node1", state, pods, [])


def test_a_map_has_each_interface_in_its_place() -> None:
    node = node_with([attached("shop/web", 1), attached("shop/db", 2, interface=GONE, host_interface="veth-gone")])
    assert [uplink.device.name for uplink in node.uplinks] == ["eth0"]
    assert node.uplinks[0].gateways == ("192.0.2.254",)
    [tunnel], [bridge] = node.tunnels, node.bridges
    assert (tunnel.underlay, [tuple(peer) for peer in tunnel.peers]) == (
        "eth0", [(("10.5.2.0/24",), "10.5.2.0", "02:00:00:00:00:02", "192.0.2.2", ())],
    )  # fmt: skip
    assert [port.attached.pod for port in bridge.ports if port.attached] == ["shop/web"]
    assert [each.pod for each in node.elsewhere] == ["shop/db"]
    assert (node.routed, node.others) == ((), ())


def test_a_peer_lacks_the_entries_that_the_kernel_has_not() -> None:
    devices = (device(TUNNEL, "flannel.1", "vxlan", vni=1),)
    routes = {TUNNEL: [Route("10.5.2.0/24", "10.5.2.0", 80), Route("10.5.3.0/24", "10.5.3.0", 80)]}
    state = EMPTY._replace(
        devices=devices,
        routes=routes,
        neighbours={(TUNNEL, "10.5.3.0"): "02:00:00:00:00:03"},
        fdb={(TUNNEL, "02:00:00:00:00:09"): "192.0.2.9"},
    )
    [tunnel] = node_map("node1", state, [], []).tunnels
    assert [(peer.subnets, peer.public_ip, peer.lacks) for peer in tunnel.peers] == [
        (("10.5.2.0/24",), "", ("neighbour", "fdb")),
        (("10.5.3.0/24",), "", ("fdb",)),
        ((), "192.0.2.9", ()),
    ]


def test_direct_routes_are_those_of_agents() -> None:
    """Other routes by a gateway do not lead to nodes: 4 is RTPROT_STATIC."""
    routes = {
        UPLINK: [Route(f"10.5.{protocol}.0/24", "192.0.2.2", protocol) for protocol in (3, 4, 80)],
        BRIDGE: [Route("", "10.1.0.254", 4)],
    }
    state = EMPTY._replace(devices=(device(UPLINK, "eth0"), device(BRIDGE, "br0", "bridge")), routes=routes)
    node = node_map("node1", state, [], [])
    assert [uplink.direct for uplink in node.uplinks] == [(("10.5.3.0/24", "192.0.2.2"), ("10.5.80.0/24", "192.0.2.2"))]
    assert [bridge.interface.gateways for bridge in node.bridges] == [("10.1.0.254",)]


def test_a_pair_of_the_host_is_the_gateway_of_its_port() -> None:
    devices = (
        device(BRIDGE, "cni0", "bridge"),
        device(11, "cni0.100", "veth", parent=12),
        device(12, "p100.ab", "veth", parent=11, master=BRIDGE),
        device(13, "stray", "veth"),
    )
    state = EMPTY._replace(devices=devices, addresses={11: ["10.5.0.1/24"]}, vlans={12: ("100",)})
    node = node_map("node1", state, [], [])
    [port] = node.bridges[0].ports
    assert port.gateway is not None
    assert (port.gateway.device.name, port.gateway.addresses, port.vlans) == ("cni0.100", ("10.5.0.1/24",), ("100",))
    assert [each.device.name for each in node.others] == ["stray"]


def test_bridges_with_pods_come_before_others_and_routed_pods_are_apart() -> None:
    devices = (
        device(1, "docker0", "bridge"), device(2, "cni0", "bridge"), device(3, "veth1", "veth", master=2),
        device(4, "veth2", "veth"),
    )  # fmt: skip
    pods = [attached("shop/web", 1), attached("edge/gateway", 2)]
    node = node_map("node1", EMPTY._replace(devices=devices), pods, [])
    assert [bridge.interface.device.name for bridge in node.bridges] == ["cni0", "docker0"]
    assert [port.attached.pod for port in node.routed if port.attached] == ["edge/gateway"]


@pytest.mark.parametrize(
    ("items", "ranges"),
    [
        ([(6, 1)], ()),
        ([(6, 100)], ("100",)),
        ([(6, 1), (0, 7), (8, 10), (16, 12)], ("1", "7", "10-12")),
        ([(0, 7), (6, 100)], ("100", "7")),
        ([], ()),
    ],
)
def test_vlans_of_a_port_are_ranges_with_the_native_one_first(
    items: list[tuple[int, int]], ranges: tuple[str, ...]
) -> None:
    assert vlan_ranges(items) == ranges


def test_a_cluster_has_the_own_node_first_and_says_who_is_not_reached() -> None:
    answer = {
        **ANSWER,
        "peers": [
            ANSWER["peers"][0],
            {
                "key": "10.5.3.0-24", "name": None, "state": "failed",
                "endpoints": [
                    {"subnet": "10.5.3.0/24", "public_ip": "192.0.2.3", "way": "vxlan", "applied": {"fdb": False}}
                ],
            },
        ],
        "refused": [{"key": "odd", "reason": "its subnet is another's"}],
    }  # fmt: skip
    nodes = cluster_map(answer).nodes
    assert [(node.name, node.state, node.is_reachable) for node in nodes] == [
        ("node1", "this node", True), ("node2", "vxlan", True), ("10.5.3.0-24", "failed", False),
        ("odd", "refused", False),
    ]  # fmt: skip
    assert (nodes[2].lacks, nodes[3].reason) == (("fdb",), "its subnet is another's")
    text = page(figure(node_with([]), cluster_map(answer)))
    for shown in ("10.5.0.0/16 by vxlan", "4 nodes, 2 not reachable", "failed, lacks fdb", "refused: its subnet is"):
        assert shown in text


def test_a_cluster_that_podwired_does_not_know_yet_is_drawn() -> None:
    answer = {**ANSWER, "network": None, "lease": None, "peers": []}
    assert "network is not known yet" in svg(figure(node_with([]), cluster_map(answer)))


def crowd() -> list[Attached]:
    names = [f"{'a' * 63}/{'b' * 250}", "a/b", "日本/" + "語" * 60]
    pods = [attached(name, number) for number, name in enumerate(names)]
    ports = tuple([f"{port}->80/tcp" for port in range(1, 30)])
    return [*pods, *[attached(f"load/worker-{number}", number, ports=ports[: number % 12]) for number in range(3, 500)]]


def overlap(first: Box, second: Box) -> bool:
    return (
        first.x < second.x + second.width
        and second.x < first.x + first.width
        and first.y < second.y + second.height
        and second.y < first.y + first.height
    )


def test_no_card_of_500_pods_is_over_another_and_each_has_room_for_its_text() -> None:
    cluster = ClusterMap("vxlan", ("10.5.0.0/16",), "", tuple([ClusterNode(f"node{n}", "vxlan") for n in range(100)]))
    placed = layout(figure(node_with(crowd()), cluster))
    boxes = [placed.root, *[group.head for group in placed.groups]]
    boxes += [box for group in placed.groups for box in group.members]
    assert len(boxes) > 600
    assert [(first.card, second.card) for first, second in combinations(boxes, 2) if overlap(first, second)] == []
    for box in boxes:
        assert box.x >= 0
        assert box.x + box.width <= placed.width
        assert box.y + box.height <= placed.height
        assert len(box.lines) * LINE <= box.height
        assert all(width(line.text) * CELL + PAD * 2 <= box.width for line in box.lines)
    assert 0.5 < placed.width / placed.height < 3  # columns, not one long list


def width(text: str) -> int:
    return sum(2 if letter > "\u1100" else 1 for letter in text)


@pytest.mark.parametrize("text", ["", "short", "a" * 500, "shop/web-" * 20, "日本語" * 50, "a" * (COLUMNS + 1)])
def test_a_wrapped_text_is_whole(text: str) -> None:
    pieces = list(wrapped(text))
    assert "".join(pieces) == text
    assert all(width(piece) <= COLUMNS for piece in pieces)


@pytest.mark.parametrize("draw", [svg, page])
def test_names_stand_whole_in_a_drawing(draw: Any) -> None:
    pods = crowd()
    text = re.sub(r"<[^>]*>\s*", "", draw(figure(node_with(pods), None)))
    for pod in pods:
        assert pod.pod in text


@pytest.mark.parametrize("draw", [svg, page])
def test_what_others_write_is_text_in_a_drawing(draw: Any) -> None:
    pods = [attached(EVIL, 1, ports=(EVIL,), addresses=(EVIL,)), attached(EVIL * 10_000, 2)]
    state = EMPTY._replace(devices=(device(1, "x", alias=EVIL), device(2, EVIL, "bridge")))
    networks = [Network(f"/etc/{EVIL}", EVIL, (), ""), Network("/etc/b", "", (), EVIL)]
    cluster = ClusterMap(EVIL, (EVIL,), EVIL, (ClusterNode(EVIL, EVIL, (EVIL,), (EVIL,), (EVIL,), (EVIL,), EVIL),))
    drawn = draw(figure(node_map(EVIL, state, pods, networks), cluster))
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\u0301]", drawn)
    assert "<script" not in drawn
    assert len(drawn) < 60 * LONGEST + 20_000
    document = ET.fromstring(drawn) if draw is svg else None
    assert document is None or not [node for node in document.iter() if node.tag.endswith("script")]


@pytest.mark.parametrize("draw", [svg, page])
def test_a_drawing_loads_nothing_and_has_colours_for_light_and_dark(draw: Any) -> None:
    text = draw(figure(node_with(crowd()), None))
    assert "prefers-color-scheme:dark" in text
    named = re.findall(r"https?://[^\s\"']*|@import|@font-face|url\(|\ssrc=|href=", text)
    assert set(named) <= {"http://www.w3.org/2000/svg"}
