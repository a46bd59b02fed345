"""The networks for which this node is the gateway: it forwards what their containers send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cni import INTERFACE, kind_of
from cni.config.firewall import families_of
from cni.config.netconf import parse_netconf
from cni.diag.conflint.findings import Collected
from cni.diag.node.attachments import PRESENT
from cni.plugins.bridge import incoming_interface
from cni.protocol.errors import CniError
from cni.protocol.plugin_config import parse_plugin_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.diag.ailments.ailment import Json, NodeView


def gateways(node: NodeView, configs: Iterable[Json]) -> dict[str, set[int]]:
    """Returns the families of containers' addresses by the host's interface that they are behind (NAME*: a prefix)."""
    present = {link.name for link in node.links}
    attached = {each.owner.network for each in node.attached if each.interface == PRESENT}
    found: dict[str, set[int]] = {}
    for members in configs:
        program = str(members.get("type", ""))
        if kind_of(program) != INTERFACE:
            continue
        try:
            config = parse_plugin_config(json.dumps(members).encode(), "ADD")
            conf = parse_netconf(config, {}, Collected(), program)
        except CniError:
            continue  # a network-file
        interface = incoming_interface(conf)
        is_used = config.name in attached if conf.routed else conf.is_gateway and interface in present
        if is_used and conf.ipam_type:
            found.setdefault(interface, set()).update(families_of(config))
    return found
