"""The container's end of a pair whose host's end is not found by its name: it was renamed, or it is gone.

Process IDs, and with them paths of namespaces, are reused. So the path may lead to another container by now, and its
interface of that name is the attachment's only if its peer, the result of ADD or its addresses match.
"""

from __future__ import annotations

from cni.protocol.address import mac_text
from cni.protocol.owner import label_keys, same_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.kernel.rtnl_parse import Link
    from cni.plan.traces import Traces


def release(host: Host, ifname: str, traces: Traces) -> None:
    """Deletes the container's end where it is the attachment's.

    In the host's own namespace (CNI_NETNS_OVERRIDE) an interface of that name may be the host's.
    """
    if host.container is None or host.container.same_as(host.netns):
        return
    in_container = host.container_rtnl.find(ifname)
    if in_container is not None and is_of(host, in_container, traces):
        host.container_rtnl.delete(ifname)


def is_of(host: Host, in_container: Link, traces: Traces) -> bool:
    """True if the container's interface is the attachment's, by its peer's alias, else by ADD's answer, else by its
    addresses.
    """
    if in_container.kind != "veth":
        return False
    peer = peer_of(host, in_container)
    keys = label_keys(peer.alias) if peer is not None else None
    if keys is not None:
        return keys[1] == traces.key
    if traces.mac or traces.hosts:
        return mac_text(in_container.mac) == traces.mac or (peer is not None and peer.name in traces.hosts)
    own = [info.address.ip for info in host.container_rtnl.addresses(in_container.name)]
    own = [ip for ip in own if not ip.is_ipv6_link_local]
    if own or (traces.knows_leases and not traces.addresses):
        return any(address.ip in own for address in traces.addresses)
    # Only the place of the other end is left to decide.
    bridge = host.rtnl.find(traces.bridge) if traces.bridge else None
    return peer is not None and peer.master == (bridge.ifindex if bridge is not None else 0)


def is_anothers(host: Host, label: str) -> bool:
    """True if podwire has attached a container in the namespace, and another one than that of the label."""
    peers = [peer_of(host, link) for link in host.container_rtnl.links() if link.kind == "veth"]
    labels = [peer.alias for peer in peers if peer is not None and label_keys(peer.alias)]
    return bool(labels) and not any(same_container(own, label) for own in labels)


def peer_of(host: Host, in_container: Link) -> Link | None:
    """Returns the other end, where it is on the host. An index alone may be that of a link in any other namespace."""
    peer = host.rtnl.find_at(in_container.peer)
    return peer if peer is not None and (peer.kind, peer.peer) == ("veth", in_container.ifindex) else None
