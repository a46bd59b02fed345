"""The host's routes to containers: each leads to the interface that the container is behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.node.attachments import OWN
from cni.diag.node.here import opened_host
from cni.diag.node.lookups import next_hop
from cni.diag.node.netconfs import conf_of
from cni.kernel.netlink import NetlinkError
from cni.plugins.bridge import incoming_interface
from cni.protocol.address import parse_net

if TYPE_CHECKING:
    from cni.diag.node.attachments import Attached
    from cni.effects.host import Host
    from cni.kernel.rtnl_parse import Link
    from cni.protocol.address import IP


def interface_towards(attached: Attached) -> str:
    """Returns the interface by which the host routes to a container that podwire has attached; empty if it does not
    route to it, or that is not known.
    """
    conf = conf_of(attached) if attached.made_by == OWN else None
    if conf is None or not (conf.routed or conf.is_gateway):
        return ""
    return attached.host_interface if conf.routed else incoming_interface(conf)


def diversion(attached: Attached) -> str:
    """Returns why packets of the host do not reach a container's interface; empty if its routes lead there, or that
    interface is missing or down. Raises NetlinkError, OSError.
    """
    name = interface_towards(attached)
    with opened_host() as host:
        link = host.rtnl.find(name) if name else None
        if link is None or not link.up:
            return ""
        reasons = [_reason(host, parse_net(text).ip, link) for text in attached.addresses]
    return next(filter(None, reasons), "")


def _reason(host: Host, ip: IP, link: Link) -> str:
    answer = next_hop(host.rtnl, ip)
    if isinstance(answer, NetlinkError):
        return f"the host has no route to {ip.text}: {answer}"
    if answer.is_local:
        return f"{ip.text} is an address of the host as well"
    if answer.ifindex == link.ifindex:
        return ""
    other = host.rtnl.find_at(answer.ifindex)
    return f"the host's route to {ip.text} is by {other.name if other is not None else '?'}, not by {link.name}"
