"""The veth pair of an attachment; when it is deleted, its addresses, routes and settings go with it."""

from __future__ import annotations

from errno import EEXIST

from cni.effects import Effect
from cni.kernel import rtnl, sysctl
from cni.kernel.netlink import NetlinkError
from cni.protocol.address import mac_text
from cni.protocol.errors import OperationFailed
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.netconf import NetConf
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.rtnl_parse import Link
    from cni.plan.operations import Veth
    from cni.protocol.owner import Owner
    from cni.protocol.result import Result

VETH_MTU = 1500  # kernel drivers/net/veth.c, ether_setup


def apply(host: Host, op: Veth, journal: Journal) -> None:
    bridge = _bridge(host, op)
    ends = (op.host_interface, op.host_mac), (op.ifname, op.mac)
    message = rtnl.new_veth(*ends, op.mtu, host.container_descriptor)
    try:
        journal.run(lambda: host.rtnl.request(*message), lambda: host.rtnl.delete(op.host_interface))
    except NetlinkError as error:
        if error.errno == EEXIST:
            refuse_attached(host, op.host_interface, op.ifname)
        raise
    _set_port(host, op, bridge)


def restore(host: Host, op: Veth) -> None:
    """Makes the host end of an existing pair what ADD made of it, except an alias that it has. Raises NetlinkError."""
    link = host.rtnl.need(op.host_interface)
    _set_port(host, op._replace(alias=link.alias or op.alias), _bridge(host, op))


def _bridge(host: Host, op: Veth) -> int:
    """Returns the bridge's index, or 0. Raises NetlinkError."""
    return host.rtnl.ifindex(op.bridge) if op.bridge else 0


def _set_port(host: Host, op: Veth, bridge: int) -> None:
    # A link whose MTU IPv6 cannot live with (RFC 8200: 1280 bytes) has nothing of it to set.
    has_ipv6 = sysctl.exists(f"/proc/sys/net/ipv6/conf/{op.host_interface}")
    host.rtnl.request(*rtnl.set_port(op.host_interface, bridge, op.alias, has_ipv6))


def with_mtus(host: Host, conf: NetConf, result: Result) -> Result:
    """Returns the result with MTUs: what was asked for, and for a bridge, which follows its ports, the kernel's."""
    shared = () if conf.routed else (conf.bridge, f"{conf.bridge}.{conf.vlan}")
    interfaces = []
    for interface in result.interfaces:
        is_shared = interface.name in shared and not interface.sandbox
        interfaces.append(interface.with_mtu(host.rtnl.need(interface.name).mtu if is_shared else conf.mtu or VETH_MTU))
    return result._replace(interfaces=tuple(interfaces))


def refuse_attached(host: Host, host_interface: str, ifname: str) -> None:
    """Raises OperationFailed if either end exists (SPEC, ADD: an interface of that name is an error)."""
    remedy = "the container is attached already, DEL comes before another ADD"
    if host.container_rtnl.find(ifname) is not None:
        raise OperationFailed(f"an interface {ifname!r} already exists in the container: {remedy}")
    if host.rtnl.find(host_interface) is not None:
        raise OperationFailed(f"an interface {host_interface!r} already exists on the host: {remedy}")


def find_own(host: Host, owner: Owner) -> Link | None:
    """Returns the host's end of the attachment's pair; None where it is gone, or another link has its name.

    The alias decides; an ADD that was killed may not have set it, but every pair is created with its MAC address.
    """
    link = host.rtnl.find(owner.host_interface)
    if link is None or owner.owns(link.alias):
        return link
    unlabelled = label_keys(link.alias) is None and link.kind == "veth"
    return link if unlabelled and link.mac == owner.host_mac else None


def release(host: Host, op: Veth) -> None:
    """Deletes the pair by its host's end, which `find_own` has found, and all links of its group."""
    host.rtnl.delete(op.host_interface, op.group)


def differs(host: Host, op: Veth) -> str:
    host_link, link = host.rtnl.find(op.host_interface), host.container_rtnl.find(op.ifname)
    if link is None:
        return f"{op.ifname} is gone from the container"
    if host_link is None:
        return f"{op.host_interface} is gone from the host"
    bridge = host.rtnl.find(op.bridge) if op.bridge else None
    for holds, otherwise in (
        (
            link.peer == host_link.ifindex and host_link.peer == link.ifindex,
            f"{op.ifname} and {op.host_interface} are not each other's ends",
        ),
        (
            host_link.master == (bridge.ifindex if bridge is not None else 0) and bool(bridge) == bool(op.bridge),
            f"{op.host_interface} is not a port of {op.bridge}" if op.bridge else f"{op.host_interface} is a port",
        ),
        (host_link.up, f"{op.host_interface} is down"),
        (link.mac == op.mac, f"{op.ifname} has the address {mac_text(link.mac)}, not {mac_text(op.mac)}"),
        (not op.mtu or link.mtu == op.mtu, f"{op.ifname} has an MTU of {link.mtu}, not {op.mtu}"),
    ):
        if not holds:
            return otherwise
    return ""


EFFECTS = {
    "Veth": Effect(apply, release, differs),
}
