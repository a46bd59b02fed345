"""The setting by which packets between pods on one bridge pass the hooks of IP, where policies are enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.dataplane import port_isolation
from cni.agent.dataplane.port_isolation import Segment
from cni.agent.logs import log
from cni.kernel import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import IP

SETTINGS = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}


def ensure(host: Host, pods: Iterable[IP]) -> str:
    """Lets the hooks of IP see what passes the bridges on which these pods are: by br_netfilter, or without it by ports
    that exchange no frames. Returns why they cannot; else empty.

    Raises OperationFailed, NetlinkError, Interrupted, OSError.
    """
    values = {family: sysctl.read(setting) for family, setting in SETTINGS.items()}
    lacking = [family for family, value in values.items() if value != "1"]
    pods = list(pods)
    if None in values.values() and port_isolation.is_possible():
        port_isolation.begin(host)
        return port_isolation.apply(host, _segments(host.rtnl, pods), pods)
    segments = _segments(host.rtnl, [ip for ip in pods if ip.family in lacking]) if lacking else []
    for family in lacking:
        names = sorted({segment.bridge for segment in segments if segment.network.ip.family == family})
        if not names:
            continue
        if sysctl.ensure(SETTINGS[family], "1") is None:
            return (
                f"bridge {', '.join(names)}: NetworkPolicy cannot be enforced between pods of this node: no sysctl "
                f"{sysctl.dotted(SETTINGS[family])} (load the module br_netfilter), and /proc/sys is read-only"
            )
        setting = sysctl.dotted(SETTINGS[family])
        log.info("set %s=1: policies are enforced between pods on %s", setting, ", ".join(names))
    port_isolation.end(host)
    return ""


def _segments(rtnl_socket: RtnlSocket, pods: list[IP]) -> list[Segment]:
    """Returns the networks of bridges in which pods are."""
    if not pods:
        return []
    links = {link.ifindex: link for link in rtnl_socket.links()}
    segments = []
    for info in rtnl_socket.all_addresses():
        link, network = links.get(info.ifindex), info.address.network
        bridge = links.get(link.peer) if link is not None and link.kind == "vlan" else link
        if link is None or bridge is None or bridge.kind != "bridge":
            continue
        if any(network.contains(ip) for ip in pods):
            segments.append(Segment(link.name, link.ifindex, bridge.name, network))
    return segments
