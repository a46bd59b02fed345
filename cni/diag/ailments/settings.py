"""Settings of the kernel that others have changed: forwarding, and router advertisements on a node that forwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.gateways import gateways
from cni.diag.ailments.overlay.tunnel import overlay_links
from cni.diag.node.attachments import PRESENT
from cni.diag.node.links import default_routes
from cni.kernel import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
FORWARDING_OF = "net/ipv4/conf/{}/forwarding"
RTPROT_RA = 9  # rtnetlink.h: the kernel has the route from a router advertisement


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields what hinders the networks for which this node is the gateway. Raises OSError."""
    for family in sorted(unforwarded(node)):
        setting = sysctl.dotted(FORWARDING[family])
        yield Ailment(
            "forwarding-off",
            setting,
            f"{setting}=0",
            "the node forwards nothing between pods and other hosts",
            f"sysctl -w {setting}=1 (and look for what sets it to 0 in /etc/sysctl.d)",
            f"sysctl {setting}",
        )
    if 4 in _served(node) - unforwarded(node):
        yield from _interfaces(node)
    if 6 in _served(node):
        yield from _advertisements(node)


def _interfaces(node: NodeView) -> Iterator[Ailment]:
    """Yields interfaces whose packets alone are not forwarded: of containers, of the overlay, and of the uplink. IPv6
    has one setting for all (net/ipv6/ip6_output.c, ip6_forward).
    """
    uplinks = {route.ifindex for route in default_routes(4)}
    names = {name for name, families in _gateways(node).items() if 4 in families}
    names |= {link.name for link in (*overlay_links(node), *[link for link in node.links if link.ifindex in uplinks])}
    for name in sorted(names):
        key = FORWARDING_OF.format(name)
        if sysctl.read(key) == "0":
            setting = sysctl.dotted(key)
            yield Ailment(
                "forwarding-off",
                setting,
                f"{setting}=0",
                f"the node forwards nothing that comes in by {name}",
                f"sysctl -w {setting}=1 (and look for what sets it to 0 in /etc/sysctl.d)",
                f"sysctl {setting}",
            )


def unforwarded(node: NodeView) -> set[int]:
    """Returns the IP versions that the node should forward, and does not."""
    return {family for family in _served(node) if sysctl.read(FORWARDING[family]) == "0"}


def _served(node: NodeView) -> set[int]:
    """Returns the IP versions of attached containers whose gateway is this node."""
    return {family for families in _gateways(node).values() for family in families}


def _gateways(node: NodeView) -> dict[str, set[int]]:
    """Returns the families of attached containers by the interface that they are behind."""
    present = [each for each in node.attached if each.interface == PRESENT]
    configs = [config for each in present if each.kept is not None for config in each.kept.configs]
    return gateways(node, configs)


def _advertisements(node: NodeView) -> Iterator[Ailment]:
    """Yields interfaces whose default route ends, since a host that forwards takes no other (kernel ip-sysctl.rst)."""
    names = {link.ifindex: link.name for link in node.links}
    for name in sorted({names.get(route.ifindex, "") for route in default_routes(6) if route.protocol == RTPROT_RA}):
        key = f"net/ipv6/conf/{name}/accept_ra"
        if sysctl.read(key) == "1" and sysctl.read(f"net/ipv6/conf/{name}/forwarding") == "1":
            yield Ailment(
                "advertisements-ignored",
                name,
                f"{sysctl.dotted(key)}=1 on a node that forwards, and a default route from a router advertisement",
                "the route expires, and pods and the node lose the external IPv6 network",
                f"sysctl -w {sysctl.dotted(key)}=2",
                f"ip -6 route show default dev {name}; sysctl {sysctl.dotted(key)}",
            )
