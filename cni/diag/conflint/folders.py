"""Findings between networks: a name twice, a bridge with two gateways, overlaps of subnets, with the node, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.node.links import addresses, links
from cni.protocol.address import parse_net
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.config.netconf import NetConf
    from cni.protocol.address import Net
    from ipam.ranges import RangeSet

    Located = tuple[str, str, str]  # file, path, message

IGNORED_KINDS = ("veth", "ifb")  # ends of containers, which may have a gateway's address
LO = "lo"


class Network(Record):
    """A network of a file: the interface plugin's configuration, its range sets, and the JSON path of its keys."""

    file: str
    name: str
    prefix: str
    conf: NetConf
    sets: tuple[RangeSet, ...]

    @property
    def subnets(self) -> list[tuple[str, Net]]:
        """Returns the subnets with their JSON paths."""
        return [
            (f"{self.prefix}{each.path}{f'[{index}]' if each.path != 'ipam' else ''}.subnet", part.subnet)
            for each in self.sets
            for index, part in enumerate(each.ranges)
        ]

    @property
    def own_links(self) -> tuple[str, ...]:
        return () if self.conf.routed else (self.conf.bridge, f"{self.conf.bridge}.{self.conf.vlan}")


class NodeAddress(Record):
    """An address of an interface of this node."""

    interface: str
    net: Net


def judge_names(names: Sequence[tuple[str, str]]) -> Iterator[Located]:
    """Yields the names that two files have. `names`: (file, name of its network)."""
    first: dict[str, str] = {}
    for file, name in names:
        if name and name in first:
            text = f"{name} is the name of the network in {first[name]}, too: they share leases and rules (rename one)"
            yield file, "name", text
        first.setdefault(name, file)


def judge_pairs(networks: Sequence[Network]) -> Iterator[Located]:
    """Yields what two networks with different names cannot have both."""
    for position, network in enumerate(networks):
        for earlier in networks[:position]:
            if earlier.name == network.name:
                continue
            whose = f"of network {earlier.name} ({earlier.file})"
            overlaps = [
                (path, f"{subnet.text} overlaps with {other.text} {whose}: two containers may get one address")
                for path, subnet in network.subnets
                for _, other in earlier.subnets
                if overlap(subnet, other)
            ]
            for path, text in overlaps:
                yield network.file, path, f"{text} (choose another subnet)"
            if not overlaps and _gateways_conflict(network, earlier):
                text = f"{network.conf.bridge} is the bridge {whose} with another gateway: ADD to the second one fails"
                yield network.file, f"{network.prefix}bridge", f"{text} (choose another bridge, or set forceAddress)"


def _gateways_conflict(network: Network, other: Network) -> bool:
    """Returns True if both networks give one bridge a gateway of the same family."""
    confs = (network.conf, other.conf)
    if any(conf.routed or not conf.is_gateway or conf.force_address or conf.vlan for conf in confs):
        return False
    families = [{subnet.family for _, subnet in each.subnets} for each in (network, other)]
    return network.conf.bridge == other.conf.bridge and bool(families[0] & families[1])


def judge_node(networks: Sequence[Network], addresses: Sequence[NodeAddress]) -> Iterator[Located]:
    """Yields subnets in which this node has an address by another interface than the network's own.

    A VXLAN device has the first address of the node's own subnet, which is never leased.
    """
    for network in networks:
        for path, subnet in network.subnets:
            for address in addresses:
                if address.interface in network.own_links or address.net.ip == subnet.ip:
                    continue
                if overlap(subnet, address.net.network):
                    text = f"{subnet.text} overlaps with {address.net.text} of {address.interface} on this node"
                    yield network.file, path, f"{text}: its neighbours cannot be reached (choose another subnet)"


def overlap(one: Net, other: Net) -> bool:
    """Returns True if two networks have an address in common."""
    wide, narrow = (one, other) if one.prefix <= other.prefix else (other, one)
    shift = wide.ip.bits - wide.prefix
    return wide.family == narrow.family and wide.ip.value >> shift == narrow.ip.value >> shift


def node_addresses() -> list[NodeAddress]:
    """Returns the addresses of this node's interfaces, without those of pairs. Raises OSError, NetlinkError."""
    names = {link.ifindex: link.name for link in links() if link.kind not in IGNORED_KINDS and link.name != LO}
    return [NodeAddress(names[ifindex], parse_net(text)) for ifindex, text in addresses() if ifindex in names]
