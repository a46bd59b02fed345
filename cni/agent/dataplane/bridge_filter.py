"""The setting by which packets between pods on one bridge pass the hooks of IP, where policies are enforced."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.logs import log
from cni.kernel import sysctl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import IP

SETTINGS = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}


def ensure(rtnl_socket: RtnlSocket, pods: Iterable[IP]) -> str:
    """Lets the hooks of IP see what passes the bridges on which these pods are. Returns why they cannot; else empty.

    Raises OperationFailed, NetlinkError, Interrupted, OSError.
    """
    lacking = [family for family, setting in SETTINGS.items() if sysctl.read(setting) != "1"]
    pods = [ip for ip in pods if ip.family in lacking]
    found = _bridges(rtnl_socket, pods) if pods else {}
    for family, names in found.items():
        setting = SETTINGS[family]
        if sysctl.ensure(setting, "1") is None:
            return (
                f"bridge {', '.join(names)}: NetworkPolicy cannot be enforced between pods of this node: no sysctl "
                f"{sysctl.dotted(setting)} (load the module br_netfilter)"
            )
        log.info("set %s=1: policies are enforced between pods on %s", sysctl.dotted(setting), ", ".join(names))
    return ""


def _bridges(rtnl_socket: RtnlSocket, pods: Iterable[IP]) -> dict[int, list[str]]:
    """Returns by family the bridges in whose networks pods are."""
    names = {link.ifindex: link.name for link in rtnl_socket.links() if link.kind == "bridge"}
    found: dict[int, list[str]] = {}
    for info in rtnl_socket.all_addresses():
        network = info.address.network
        if info.ifindex in names and any(network.contains(ip) for ip in pods):
            found.setdefault(network.ip.family, []).append(names[info.ifindex])
    return found
