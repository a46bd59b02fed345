"""The maps of node and cluster as JSON (cni/diag/README.md has the shape)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cni.diag.drawing.clustermap import ClusterMap
    from cni.diag.drawing.nodemap import Interface, NodeMap, Port, Tunnel

    Json = dict[str, Any]


def cluster_members(cluster: ClusterMap) -> Json:
    nodes = [{**node._asdict(), "reachable": node.is_reachable} for node in cluster.nodes]
    return {"backend": cluster.backend, "networks": cluster.networks, "nodes": nodes}


def node_members(node: NodeMap) -> Json:
    networks = [{"name": network.name, "file": network.path, "error": network.error} for network in node.networks]
    return {
        "name": node.name,
        "networks": networks,
        "uplinks": [*map(_interface, node.uplinks)],
        "tunnels": [*map(_tunnel, node.tunnels)],
        "bridges": [{**_interface(bridge.interface), "ports": [*map(_port, bridge.ports)]} for bridge in node.bridges],
        "routed": [*map(_port, node.routed)],
        "elsewhere": [attached.members for attached in node.elsewhere],
        "others": [*map(_interface, node.others)],
    }


def _interface(interface: Interface) -> Json:
    device = interface.device
    shown = {name: getattr(device, name) for name in ("name", "kind", "alias", "up", "mtu", "mac", "vlan")}
    direct = [{"subnet": subnet, "gateway": gateway} for subnet, gateway in interface.direct]
    return {**shown, "addresses": interface.addresses, "gateways": interface.gateways, "direct": direct}


def _tunnel(tunnel: Tunnel) -> Json:
    device = tunnel.interface.device
    vxlan = {"vni": device.vni, "port": device.port, "local": device.local, "underlay": tunnel.underlay}
    return {**_interface(tunnel.interface), **vxlan, "peers": [peer._asdict() for peer in tunnel.peers]}


def _port(port: Port) -> Json:
    return {
        "name": port.device.name,
        "kind": port.device.kind,
        "alias": port.device.alias,
        "up": port.device.up,
        "vlans": port.vlans,
        "attachment": port.attached.members if port.attached is not None else None,
        "gateway": _interface(port.gateway) if port.gateway is not None else None,
    }
