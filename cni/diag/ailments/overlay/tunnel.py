"""The overlay's device on this node: it is down, its UDP port is another's, it sends more than its underlay takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.node.links import OVERHEAD
from cni.diag.node.sockets import holder, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView
    from cni.diag.node.links import Link, Tunnel

NAMES = "flannel"  # how the devices are called, with a VNI


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields what is wrong with each device."""
    for link in overlay_links(node):
        if link.tunnel is not None:
            yield from _too_long(node, link, link.tunnel) if link.up else _down(node, link, link.tunnel)


def overlay_links(node: NodeView) -> list[Link]:
    """Returns the overlay's devices."""
    return [link for link in node.links if link.tunnel is not None and link.name.startswith(NAMES)]


def _down(node: NodeView, link: Link, tunnel: Tunnel) -> Iterator[Ailment]:
    if rival := _rival(node, tunnel):
        name, remedy = rival
        yield Ailment(
            "tunnel-port-taken",
            link.name,
            f"{name} has UDP port {tunnel.port}, and the device is down",
            "pods of other nodes are not reached",
            f"{remedy} (or choose another Backend.Port on all nodes)",
            f"ss -lunp sport = :{tunnel.port}; ip -d link show type vxlan",
        )
    else:
        yield Ailment(
            "tunnel-down",
            link.name,
            "the device is down",
            "pods of other nodes are not reached",
            f"ip link set {link.name} up (podwired does it by itself where it runs)",
            f"ip -d link show {link.name}",
        )


def _rival(node: NodeView, tunnel: Tunnel) -> tuple[str, str] | None:
    """Returns who has the port, and the command that ends it: a process, or a VXLAN device of another mode."""
    process = holder(listening("udp", any_address=False).get(tunnel.port, ""))
    if process is not None:
        return f"process {process[0]} ({process[1]})", f"kill {process[0]}"
    of_port = [link for link in node.links if link.up and link.tunnel is not None and link.tunnel.port == tunnel.port]
    others = [link.name for link in of_port if link.tunnel and link.tunnel.external != tunnel.external]
    return (f"the device {others[0]}", f"ip link delete {others[0]}") if others else None


def _too_long(node: NodeView, link: Link, tunnel: Tunnel) -> Iterator[Ailment]:
    below = next((other for other in node.links if other.ifindex == tunnel.underlay), None)
    if below is None or link.mtu <= below.mtu - OVERHEAD[tunnel.family]:
        return
    largest = below.mtu - OVERHEAD[tunnel.family]
    yield Ailment(
        "tunnel-mtu",
        link.name,
        f"its MTU is {link.mtu}, and {below.name} takes {below.mtu}, with the tunnel's headers",
        "large packets are sent in fragments, which firewalls and clouds drop",
        f"ip link set {link.name} mtu {largest} (and the same in the agent's configuration)",
        f"ip -d link show {link.name}; ip link show {below.name}",
    )
