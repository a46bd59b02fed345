"""VXLAN: one device for each family carries packets to all nodes (RFC 7348).

What can be changed in place is, so that a device that other nodes know keeps its tables and its traffic.
"""

from __future__ import annotations

from errno import EADDRINUSE, EEXIST, ENODEV, EOPNOTSUPP
from typing import TYPE_CHECKING

from cni.agent.backends.base import mtu_behind
from cni.kernel import ethtool, rtnl, rtnl_overlay, sysctl
from cni.kernel.netlink import NetlinkError
from cni.protocol.address import mac_text
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Container

    from cni.agent.dataplane.devices import LinkState
    from cni.agent.model.lease import Endpoint
    from cni.agent.model.network import BackendConfig
    from cni.agent.uplink.select import Underlay
    from cni.kernel.rtnl_overlay import VxlanInfo
    from cni.kernel.rtnl_parse import Link
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import Net

DEFAULT_PORT = 8472  # the kernel's
OVERHEAD = {4: 50, 6: 70}  # bytes that VXLAN adds to a packet, by the family of the underlay (RFC 7348, section 5)


class Vxlan:
    """The backend `vxlan`: a VTEP for each family of the network."""

    needs_own_address = False

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self.vni = config.vni
        self.routes_directly = config.direct_routing

    def mtu(self, underlay: Underlay, family: int) -> int:
        return mtu_behind(self._config, underlay, family, OVERHEAD[family])

    def device_name(self, family: int) -> str:
        return f"flannel.{self.vni}" if family == 4 else f"flannel-v6.{self.vni}"

    def device(self, underlay: Underlay, own: Endpoint, alias: str, *, offloads: bool) -> Device:
        config, family = self._config, own.subnet.family
        info = rtnl_overlay.VxlanInfo(
            vni=config.vni,
            link=underlay.ifindex,
            local=next(net.ip for net in underlay.addresses if net.family == family),
            port=config.port,
            learning=config.learning,
            gbp=config.gbp,
        )
        name, mac, mtu = self.device_name(family), own.vtep_mac or b"", self.mtu(underlay, family)
        return Device(name, mac, mtu, info, own.subnet.network.host, alias, offloads)


class Device(Record):
    """A VTEP of this node. `address` is its own, the subnet's first; `mtu` in bytes. By the `alias` it is known as
    this agent's, whatever the network is by then. Where it does not `offload`, the kernel adds checksums before it.
    """

    name: str
    mac: bytes
    mtu: int
    info: VxlanInfo
    address: Net
    alias: str
    offloads: bool = True

    def ensure(self, rtnl_socket: RtnlSocket) -> tuple[int, list[str]]:
        """Returns the device's index, and what had to be done to it, in words. Raises NetlinkError."""
        link, done = _vxlan_link(rtnl_socket, self)
        if link.mac != self.mac:
            rtnl_socket.request(*rtnl.set_mac(self.name, self.mac))
            done.append(f"{self.name} had the MAC address {mac_text(link.mac)}")
        if link.mtu != self.mtu:
            rtnl_socket.request(*rtnl.set_mtu(self.name, self.mtu))
            done.append(f"{self.name} had an MTU of {link.mtu}")
        if link.master:
            rtnl_socket.request(*rtnl_overlay.set_free(self.name))
            done.append(f"{self.name} was a port of another link")
        if link.alias != self.alias:
            rtnl_socket.request(*rtnl.set_alias(self.name, self.alias))
        if not self.offloads and ethtool.complete_checksums(self.name):
            done.append(f"{self.name} left checksums to the network card")
        _ignore_advertisements(self.name)
        done += _set_address(rtnl_socket, link.ifindex, self)
        if not link.up:
            _bring_up(rtnl_socket, self)
            done.append(f"{self.name} was down")
        return link.ifindex, done

    def as_ensured(self, link: LinkState) -> LinkState:
        """Returns the state in which `ensure` has left the device, of one that was read later."""
        addresses = tuple(dict.fromkeys([*link.addresses, self.address]))
        return link._replace(mac=self.mac, mtu=self.mtu, up=True, master=0, addresses=addresses)


def _vxlan_link(rtnl_socket: RtnlSocket, device: Device) -> tuple[Link, list[str]]:
    """The link, of the right tunnel: as it was, changed or recreated."""
    done = []
    link = rtnl_socket.find(device.name)
    if link is not None:
        info = rtnl_overlay.parse_vxlan(rtnl_socket.ask(*rtnl.get_link(device.name)))
        # Where no port is asked for, the kernel has chosen one.
        wanted = device.info if info is None or device.info.port else device.info._replace(port=info.port)
        if info == wanted:
            return rtnl_socket.need(device.name), []
        if info is None:
            kind = link.kind or "device"
            raise NetlinkError(
                EEXIST, f"{device.name} is a {kind} that podwired did not create: remove it, or give it another name"
            )
        if _change_in_place(rtnl_socket, device, info):
            return rtnl_socket.need(device.name), [f"{device.name} had another underlay"]
        rtnl_socket.request(*rtnl.delete_link(device.name))
        done.append(f"{device.name} was not this network's tunnel: recreated")
    else:
        done.append(f"{device.name} was not there")
    message = rtnl_overlay.new_vxlan(device.name, device.mac, device.mtu, device.info)
    try:
        rtnl_socket.request(*message)
    except NetlinkError as error:
        if error.errno != EEXIST:
            raise
        if not (renamed := _retire_twins(rtnl_socket, device)):
            # The kernel compares with devices that were moved away from here as well.
            rivals = _rivals(rtnl_socket, device, (device.info.vni,)) or "a device in another network namespace"
            raise NetlinkError(
                EEXIST,
                f"{rivals} has the VNI of {device.name} on its port: remove it, or"
                f" choose another VNI or Port than {device.info.vni} and {device.info.port or DEFAULT_PORT}",
            ) from None
        done.append(f"{', '.join(renamed)} had been {device.name}")
        rtnl_socket.request(*message)
    return rtnl_socket.need(device.name), done


def _bring_up(rtnl_socket: RtnlSocket, device: Device) -> None:
    """The kernel opens the port now, which a device of another mode or a program may have."""
    try:
        rtnl_socket.request(*rtnl.set_flags(device.name, rtnl.IFF_UP, rtnl.IFF_UP))
    except NetlinkError as error:
        if error.errno != EADDRINUSE:
            raise
        port, others = device.info.port or DEFAULT_PORT, _rivals(rtnl_socket, device, range(1 << 24)) or "a program"
        raise NetlinkError(
            EADDRINUSE, f"{device.name} cannot be up: {others} uses UDP port {port}: remove it, or choose another Port"
        ) from None


def _rivals(rtnl_socket: RtnlSocket, device: Device, vnis: Container[int]) -> str:
    """Returns others' VXLAN devices on the same port, with one of these VNIs, in words; empty if there are none."""
    port, names = device.info.port or DEFAULT_PORT, []
    for link in rtnl_socket.links():
        if link.kind == "vxlan" and link.name != device.name and link.alias != device.alias:
            info = rtnl_overlay.parse_vxlan(rtnl_socket.ask(*rtnl.get_link(link.name)))
            if info is not None and info.port == port and info.vni in vnis:
                names.append(link.name)
    return f"the VXLAN device {' or '.join(names)}" if names else ""


def _retire_twins(rtnl_socket: RtnlSocket, device: Device) -> list[str]:
    """Removes a device of the agent's that somebody has given another name."""
    ours = [link.name for link in rtnl_socket.links() if link.alias == device.alias and link.name != device.name]
    infos = {name: rtnl_overlay.parse_vxlan(rtnl_socket.ask(*rtnl.get_link(name))) for name in ours}
    mine = (device.info.vni, device.info.local.family)
    twins = [name for name, info in infos.items() if info is not None and (info.vni, info.local.family) == mine]
    for name in twins:
        rtnl_socket.tolerate(ENODEV, rtnl.delete_link(name))
    return twins


def _change_in_place(rtnl_socket: RtnlSocket, device: Device, current: VxlanInfo) -> bool:
    """Returns True if the tunnel could be made the wanted one in place. Raises NetlinkError."""
    info = device.info
    if (current.vni, current.gbp, current.local.family) != (info.vni, info.gbp, info.local.family):
        return False
    if info.port and current.port != info.port:
        return False
    try:
        rtnl_socket.request(*rtnl_overlay.set_vxlan(device.name, info))
    except NetlinkError as error:
        if error.errno == EOPNOTSUPP:
            return False
        raise
    return True


def _ignore_advertisements(name: str) -> None:
    """A container of the agent's may have to live with what it cannot read or write."""
    try:
        sysctl.ensure(f"net/ipv6/conf/{name}/accept_ra", "0", optional=True)
    except OSError:
        return


def _set_address(rtnl_socket: RtnlSocket, index: int, device: Device) -> list[str]:
    """Its own address, and no other of the family but for that of the link."""
    present = [info.address for info in rtnl_socket.addresses(device.name)]
    done = []
    if device.address not in present:
        flags = rtnl.IFA_F_NODAD if device.address.family == 6 else 0
        rtnl_socket.request(*rtnl.new_address(index, device.address, flags))
        done.append(f"{device.name} had no address {device.address.text}")
    for other in present:
        if other.family == device.address.family and other != device.address and not other.ip.is_ipv6_link_local:
            rtnl_socket.request(*rtnl.delete_address(index, other))
            done.append(f"{device.name} had the address {other.text}")
    return done
