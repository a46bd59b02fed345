"""The networks for which this node is the gateway: it forwards what their containers send."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.config.firewall import families_of
from cni.diag.node.attachments import PRESENT
from cni.diag.node.netconfs import parse_interface
from cni.plugins.bridge import incoming_interface

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.diag.ailments.ailment import Json, NodeView


def gateways(node: NodeView, configs: Iterable[Json]) -> dict[str, set[int]]:
    """Returns the families of containers' addresses by the host's interface that they are behind (NAME*: a prefix)."""
    present = {link.name for link in node.links}
    attached = {each.owner.network for each in node.attached if each.interface == PRESENT}
    families: dict[str, set[int]] = {}
    for members in configs:
        parsed = parse_interface(members)
        if parsed is None:  # or a network-file
            continue
        config, conf = parsed
        interface = incoming_interface(conf)
        is_used = config.name in attached if conf.routed else conf.is_gateway and interface in present
        if is_used and conf.ipam_type:
            families.setdefault(interface, set()).update(families_of(config))
    return families
