"""The tunnel's device on this node: what it has to be, and how it gets there.

What can be set is set, so that a device that other nodes know keeps its tables and its traffic.
"""

from __future__ import annotations

from errno import EADDRINUSE, EEXIST, ENODEV, EOPNOTSUPP
from typing import TYPE_CHECKING

from cni.agent.model.network import VXLAN
from cni.kernel import rtnl, rtnl_overlay, rtnl_parse, sysctl
from cni.kernel.netlink import NetlinkError
from cni.protocol.address import Net, mac_text
from cni.protocol.errors import InvalidConfig
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Container

    from cni.agent.model.lease import Endpoint
    from cni.agent.model.network import Backend
    from cni.agent.uplink.select import Underlay
    from cni.kernel.rtnl_overlay import VxlanInfo
    from cni.kernel.rtnl_parse import Link
    from cni.kernel.rtnl_socket import RtnlSocket

DEFAULT_PORT = 8472  # the kernel's
OVERHEAD = {4: 50, 6: 70}  # bytes that VXLAN adds to a packet, by the family of the wire (RFC 7348, section 5)
LEAST_MTU = {4: 68, 6: 1280}  # RFC 791, RFC 8200


class Device(Record):
    """The tunnel's end on this node: `address` is its own, of the subnet's first; `mtu` in bytes. By the `alias` it is
    known as this agent's, whatever the network is by then.
    """

    name: str
    mac: bytes
    mtu: int
    info: VxlanInfo
    address: Net
    alias: str


class LinkState(Record):
    """How a link of the agent's has to be. `tunnel` is None where it is none."""

    name: str
    mac: bytes
    mtu: int
    up: bool
    master: int
    tunnel: VxlanInfo | None
    addresses: tuple[Net, ...]

    def matches(self, answer: bytes) -> bool:
        """The kernel says the same of the link now."""
        return parse_link_state(answer, self.addresses) == self


def parse_link_state(answer: bytes, addresses: tuple[Net, ...]) -> LinkState:
    link = rtnl_parse.parse_link(answer)
    return LinkState(link.name, link.mac, link.mtu, link.up, link.master, rtnl_overlay.parse_vxlan(answer), addresses)


def pod_mtu(backend: Backend, underlay: Underlay, family: int) -> int:
    """Bytes of a pod's packet that other nodes' pods get in one piece. Raises InvalidConfig where they are too few."""
    wire = min(backend.mtu or underlay.mtu, underlay.mtu)
    mtu = wire - OVERHEAD[family] if backend.kind == VXLAN else wire
    if mtu < LEAST_MTU[family]:
        raise InvalidConfig(f"an MTU of {wire} leaves {mtu} bytes for pods, IPv{family} needs {LEAST_MTU[family]}")
    return mtu


def name_of(backend: Backend, family: int) -> str:
    return f"flannel.{backend.vni}" if family == 4 else f"flannel-v6.{backend.vni}"


def device_of(backend: Backend, underlay: Underlay, own: Endpoint, alias: str) -> Device:
    """Raises InvalidConfig."""
    family = own.subnet.family
    local = next(net.ip for net in underlay.addresses if net.family == family)
    info = rtnl_overlay.VxlanInfo(
        vni=backend.vni,
        link=underlay.ifindex,
        local=local,
        port=backend.port,
        learning=backend.learning,
        gbp=backend.gbp,
    )
    name = name_of(backend, family)
    return Device(name, own.vtep_mac or b"", pod_mtu(backend, underlay, family), info, own.subnet.network.host, alias)


def link_state(route: RtnlSocket, name: str) -> LinkState:
    """How a link is now. Raises NetlinkError where there is none."""
    return parse_link_state(route.ask(*rtnl.get_link(name)), tuple([one.address for one in route.addresses(name)]))


def ensure_device(route: RtnlSocket, device: Device) -> tuple[int, list[str]]:
    """The device's index, and what had to be done to it, in words. Raises NetlinkError."""
    link, done = _tunnel(route, device)
    if link.mac != device.mac:
        route.request(*rtnl.set_mac(device.name, device.mac))
        done.append(f"{device.name} had the MAC address {mac_text(link.mac)}")
    if link.mtu != device.mtu:
        route.request(*rtnl.set_mtu(device.name, device.mtu))
        done.append(f"{device.name} had an MTU of {link.mtu}")
    if link.master:
        route.request(*rtnl_overlay.set_free(device.name))
        done.append(f"{device.name} was a port of another link")
    if link.alias != device.alias:
        route.request(*rtnl.set_alias(device.name, device.alias))
    _refuse_advertisements(device.name)
    done += _set_address(route, link.ifindex, device)
    if not link.up:
        _bring_up(route, device)
        done.append(f"{device.name} was down")
    return link.ifindex, done


def _tunnel(route: RtnlSocket, device: Device) -> tuple[Link, list[str]]:
    """The link, of the right tunnel: as it was, changed or made anew."""
    done = []
    link = route.find(device.name)
    if link is not None:
        found = rtnl_overlay.parse_vxlan(route.ask(*rtnl.get_link(device.name)))
        # Where no port is asked for, the kernel has chosen one.
        wanted = device.info if found is None or device.info.port else device.info._replace(port=found.port)
        if found == wanted:
            return route.need(device.name), []
        if found is None:
            kind = link.kind or "device"
            raise NetlinkError(
                EEXIST, f"{device.name} is a {kind} of somebody else: remove it, or give it another name"
            )
        if _is_changed(route, device, found):
            return route.need(device.name), [f"{device.name} had another wire"]
        route.request(*rtnl.delete_link(device.name))
        done.append(f"{device.name} was not this network's tunnel: made anew")
    else:
        done.append(f"{device.name} was not there")
    made = rtnl_overlay.new_vxlan(device.name, device.mac, device.mtu, device.info)
    try:
        route.request(*made)
    except NetlinkError as refused:
        if refused.errno != EEXIST:
            raise
        if not (renamed := _retire_twins(route, device)):
            # The kernel compares with devices that were moved away from here as well.
            rivals = _rivals(route, device, (device.info.vni,)) or "a device in another network namespace"
            raise NetlinkError(
                EEXIST,
                f"{rivals} has the VNI of {device.name} on its port: remove it, or"
                f" choose another VNI or Port than {device.info.vni} and {device.info.port or DEFAULT_PORT}",
            ) from None
        done.append(f"{', '.join(renamed)} had been {device.name}")
        route.request(*made)
    return route.need(device.name), done


def _bring_up(route: RtnlSocket, device: Device) -> None:
    """The kernel opens the port now, which a device of another mode or a program may have."""
    try:
        route.request(*rtnl.set_flags(device.name, rtnl.IFF_UP, rtnl.IFF_UP))
    except NetlinkError as refused:
        if refused.errno != EADDRINUSE:
            raise
        port, others = device.info.port or DEFAULT_PORT, _rivals(route, device, range(1 << 24)) or "a program"
        raise NetlinkError(
            EADDRINUSE, f"{device.name} cannot be up: {others} uses UDP port {port}: remove it, or choose another Port"
        ) from None


def _rivals(route: RtnlSocket, device: Device, vnis: Container[int]) -> str:
    """Returns others' VXLAN devices on the same port, with one of these VNIs, in words; empty if there are none."""
    port, names = device.info.port or DEFAULT_PORT, []
    for link in route.links():
        if link.kind == "vxlan" and link.name != device.name and link.alias != device.alias:
            found = rtnl_overlay.parse_vxlan(route.ask(*rtnl.get_link(link.name)))
            if found is not None and found.port == port and found.vni in vnis:
                names.append(link.name)
    return f"the VXLAN device {' or '.join(names)}" if names else ""


def _retire_twins(route: RtnlSocket, device: Device) -> list[str]:
    """Removes a device of the agent's that somebody has given another name."""
    ours = [link.name for link in route.links() if link.alias == device.alias and link.name != device.name]
    found = {name: rtnl_overlay.parse_vxlan(route.ask(*rtnl.get_link(name))) for name in ours}
    mine = (device.info.vni, device.info.local.family)
    twins = [name for name, info in found.items() if info is not None and (info.vni, info.local.family) == mine]
    for name in twins:
        route.tolerate(ENODEV, rtnl.delete_link(name))
    return twins


def _is_changed(route: RtnlSocket, device: Device, found: VxlanInfo) -> bool:
    """Tries to make the tunnel the wanted one in place."""
    info = device.info
    if (found.vni, found.gbp, found.local.family) != (info.vni, info.gbp, info.local.family):
        return False
    if info.port and found.port != info.port:
        return False
    try:
        route.request(*rtnl_overlay.set_vxlan(device.name, info))
    except NetlinkError as refused:
        if refused.errno == EOPNOTSUPP:
            return False
        raise
    return True


def _refuse_advertisements(name: str) -> None:
    """A container of the agent's may have to live with what it cannot read or write."""
    try:
        sysctl.ensure(f"net/ipv6/conf/{name}/accept_ra", "0", optional=True)
    except OSError:
        return


def _set_address(route: RtnlSocket, index: int, device: Device) -> list[str]:
    """Its own address, and no other of the family but for that of the link."""
    present = [one.address for one in route.addresses(device.name)]
    done = []
    if device.address not in present:
        flags = rtnl.IFA_F_NODAD if device.address.family == 6 else 0
        route.request(*rtnl.new_address(index, device.address, flags))
        done.append(f"{device.name} had no address {device.address.text}")
    for other in present:
        if other.family == device.address.family and other != device.address and not other.ip.is_ipv6_link_local:
            route.request(*rtnl.delete_address(index, other))
            done.append(f"{device.name} had the address {other.text}")
    return done


def retire(route: RtnlSocket, alias: str, keep: tuple[str, ...]) -> list[str]:
    """Removes the agent's devices but these, with all that their tables hold; returns their names."""
    is_stale = [link.name for link in route.links() if link.alias == alias and link.name not in keep]
    for name in is_stale:
        route.tolerate(ENODEV, rtnl.delete_link(name))
    return is_stale
