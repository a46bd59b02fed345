"""Deletes UDP flows from the connection tracking table when host ports are mapped or released.

The kernel sees no end of a UDP flow: as long as packets come, it keeps the translation that it had first, past a host
port that was mapped later, or through one that is released.
"""

from __future__ import annotations

from errno import ENOENT

from cni.effects import Effect, not_released, nothing_differs
from cni.kernel import conntrack
from cni.kernel.netlink import NetlinkError
from cni.protocol.address import IPV4_BYTES, IPV6_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.conntrack import Flow
    from cni.plan.portmap import FlowsBeforeMapping, FlowsThroughMapping


def apply_unmapped(host: Host, op: FlowsBeforeMapping, journal: Journal) -> None:
    """Deletes UDP flows to these host ports that are older than the mapping; flows that are only routed are kept.

    There is no undo, and none is needed: the next packet adds the flow again.
    """
    local = _local_addresses(host) if any(mapping.host_ip is None for mapping in op.mappings) else set()
    destinations: dict[bytes, set[bytes]] = {}
    for mapping in op.mappings:
        addresses = local if mapping.host_ip is None else {mapping.host_ip.packed}
        destinations.setdefault(conntrack.PORT.pack(mapping.host_port), set()).update(addresses)
    _delete_flows(host, op.ip.family, set(destinations), lambda flow: flow.destination in destinations[flow.port])


def _local_addresses(host: Host) -> set[bytes]:
    return {info.address.ip.packed for info in host.rtnl.all_addresses()}


def apply_mapped(host: Host, op: FlowsThroughMapping, journal: Journal) -> None:
    """Does nothing: there are none yet."""


def release_mapped(host: Host, op: FlowsThroughMapping) -> None:
    """Deletes UDP flows through these host ports to the container; the ports are released already."""
    delete_mapped(host, {(op.ip.packed, mapping.host_port) for mapping in op.mappings})


def delete_mapped(host: Host, targets: set[tuple[bytes, int]]) -> None:
    """Deletes UDP flows to container addresses through host ports, in one pass for each family."""
    for family, size in ((4, IPV4_BYTES), (6, IPV6_BYTES)):
        pairs = {(ip, conntrack.PORT.pack(port)) for ip, port in targets if len(ip) == size}
        if pairs:
            _delete_flows(host, family, {port for _, port in pairs}, _MappedTo(pairs).has)


class _MappedTo:
    """A set of container addresses, each with a host port."""

    def __init__(self, pairs: set[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def has(self, flow: Flow) -> bool:
        return (flow.reply_source, flow.port) in self._pairs


def _delete_flows(host: Host, family: int, ports: set[bytes], is_stale: Callable[[Flow], bool]) -> None:
    """Deletes those flows to the host ports that are stale; a flow that has ended meanwhile is success."""
    try:
        answers = host.nft.dump(*conntrack.flows_to(family, ports))
    except (NetlinkError, OSError) as error:
        if error.errno in conntrack.LACKING:
            return
        raise
    for answer in answers:
        flow = conntrack.parse_flow(answer, family)
        if flow is not None and flow.port in ports and is_stale(flow):
            try:
                host.nft.request(*conntrack.delete_flow(family, flow))
            except NetlinkError as error:
                if error.errno != ENOENT:
                    raise


EFFECTS = {
    "FlowsBeforeMapping": Effect(apply_unmapped, not_released, nothing_differs),
    "FlowsThroughMapping": Effect(apply_mapped, release_mapped, nothing_differs),
}
