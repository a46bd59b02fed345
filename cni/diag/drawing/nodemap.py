"""A node as a map: its uplinks, tunnels, bridges and pods, put together from the kernel's state and kept calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cni.diag.node.attachments import Attached
    from cni.diag.node.conflists import Network
    from cni.diag.node.devices import Device, KernelState

TO_PEERS = (3, 80)  # protocols of routes to other nodes' subnets: RTPROT_BOOT, which is flannel's, and podwired's
NEIGHBOUR, FDB = "neighbour", "fdb"  # what a peer may lack, as podwired names it


class Interface(Record):
    """An interface with its addresses, the gateways of default routes through it, and subnets of other nodes that are
    reached by a gateway behind it: pairs of subnet and gateway.
    """

    device: Device
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    direct: tuple[tuple[str, str], ...]


class Peer(Record):
    """The other end of a tunnel. Of a VTEP that no route leads to `subnets` and `next_hop` are empty."""

    subnets: tuple[str, ...]
    next_hop: str
    mac: str
    public_ip: str
    lacks: tuple[str, ...]


class Tunnel(Record):
    """A VXLAN device; `underlay` is the name of the interface that it sends by."""

    interface: Interface
    underlay: str
    peers: tuple[Peer, ...]


class Port(Record):
    """A host interface. `gateway` is the other end of a pair that is on the host itself, as a VLAN's gateway is."""

    device: Device
    vlans: tuple[str, ...]
    attached: Attached | None
    gateway: Interface | None


class Bridge(Record):
    """A bridge and its ports; those of pods come first."""

    interface: Interface
    ports: tuple[Port, ...]


class NodeMap(Record):
    """A node. Bridges with pods come first. `routed` are host interfaces of pods that are in no bridge, `elsewhere`
    attachments without a host interface: it is gone, or their plugin makes none. `others` is every interface that is
    not drawn otherwise.
    """

    name: str
    networks: tuple[Network, ...]
    uplinks: tuple[Interface, ...]
    tunnels: tuple[Tunnel, ...]
    bridges: tuple[Bridge, ...]
    routed: tuple[Port, ...]
    elsewhere: tuple[Attached, ...]
    others: tuple[Interface, ...]


def node_map(
    name: str, state: KernelState, attached: Sequence[Attached], networks: Sequence[Network], pinned: str = ""
) -> NodeMap:
    """Returns the map. `attached` is in the order in which pods are drawn; `pinned` names the interface that podwired
    has chosen, if it is known.
    """
    devices = {device.ifindex: device for device in state.devices if device.name != "lo" and device.kind != "ifb"}
    indexes = {device.name: device.ifindex for device in devices.values()}
    interfaces = {ifindex: _interface(device, state) for ifindex, device in devices.items()}
    by_index = {indexes[each.host_interface]: each for each in attached if each.host_interface in indexes}
    bridged = {
        ifindex: [port for port in devices.values() if port.master == ifindex]
        for ifindex, device in devices.items()
        if device.kind == "bridge"
    }
    ends = {port.parent for ports in bridged.values() for port in ports if port.kind == "veth"}
    order = {ifindex: position for position, ifindex in enumerate(by_index)}

    def ports_of(members: Iterable[Device]) -> tuple[Port, ...]:
        in_order = sorted(members, key=lambda port: (order.get(port.ifindex, len(order)), port.ifindex))
        return tuple([_port(port, state, by_index, interfaces) for port in in_order])

    tunnels = tuple([_tunnel(interfaces[ifindex], state, devices) for ifindex in devices if devices[ifindex].vni])
    bridges = [Bridge(interfaces[ifindex], ports_of(ports)) for ifindex, ports in bridged.items()]
    bridges.sort(key=lambda bridge: all(port.attached is None for port in bridge.ports))
    drawn = {*bridged, *ends, *by_index, *[port.ifindex for ports in bridged.values() for port in ports]}
    drawn |= {tunnel.interface.device.ifindex for tunnel in tunnels}
    underlays = {tunnel.underlay for tunnel in tunnels if tunnel.underlay} | {pinned}
    rest = [each for ifindex, each in interfaces.items() if ifindex not in drawn]
    uplinks = tuple([each for each in rest if each.gateways or each.direct or each.device.name in underlays])
    return NodeMap(
        name,
        tuple(networks),
        uplinks,
        tunnels,
        tuple(bridges),
        ports_of([devices[ifindex] for ifindex in by_index if devices[ifindex].master not in bridged]),
        tuple([each for each in attached if each.host_interface not in indexes]),
        tuple([each for each in rest if each not in uplinks]),
    )


def _interface(device: Device, state: KernelState) -> Interface:
    routes = state.routes.get(device.ifindex, ())
    gateways = dict.fromkeys([route.gateway for route in routes if not route.subnet])
    direct = [(route.subnet, route.gateway) for route in routes if route.subnet and route.protocol in TO_PEERS]
    return Interface(
        device, tuple(state.addresses.get(device.ifindex, ())), tuple(gateways), () if device.vni else tuple(direct)
    )


def _port(
    device: Device, state: KernelState, by_index: Mapping[int, Attached], interfaces: Mapping[int, Interface]
) -> Port:
    end = interfaces.get(device.parent) if device.kind == "veth" else None
    return Port(device, state.vlans.get(device.ifindex, ()), by_index.get(device.ifindex), end)


def _tunnel(interface: Interface, state: KernelState, devices: Mapping[int, Device]) -> Tunnel:
    ifindex, parent = interface.device.ifindex, devices.get(interface.device.parent)
    subnets: dict[str, list[str]] = {}
    for route in state.routes.get(ifindex, ()):
        if route.subnet:
            subnets.setdefault(route.gateway, []).append(route.subnet)
    peers, used = [], set()
    for next_hop, reached in subnets.items():
        mac = state.neighbours.get((ifindex, next_hop), "")
        public_ip = state.fdb.get((ifindex, mac), "")
        used.add(mac)
        lacks = [name for name, entry in ((NEIGHBOUR, mac), (FDB, public_ip)) if not entry]
        peers.append(Peer(tuple(reached), next_hop, mac, public_ip, tuple(lacks)))
    for (device, mac), public_ip in state.fdb.items():
        if device == ifindex and mac not in used:
            peers.append(Peer((), "", mac, public_ip, ()))
    return Tunnel(interface, parent.name if parent is not None else "", tuple(peers))
