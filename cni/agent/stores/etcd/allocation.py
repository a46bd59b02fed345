"""Allocation of a node's subnets: those it had before where they still fit, else free ones, chosen by its address."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from cni.agent.stores.errors import StoreError
from cni.protocol.address import IP, Net
from cni.protocol.owner import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from cni.agent.model.lease import Node
    from cni.agent.model.network import NetworkConfig, Space

CHOICE = 100  # nodes that start at the same moment choose among so many, and rarely the same


class NoSubnet(StoreError):
    """All subnets are leased; the text names the network."""


def fits(config: NetworkConfig, subnets: tuple[Net, ...]) -> bool:
    """True if a lease of these subnets could be allocated today."""
    spaces = [config.space(family) for family in config.families]
    return len(subnets) == len(spaces) and all(
        space is not None and space.holds(subnet) for space, subnet in zip(spaces, subnets, strict=True)
    )


def choose(config: NetworkConfig, node: Node, leased: Collection[Net], preferred: Iterable[Net]) -> tuple[Net, ...]:
    """Returns a subnet for each address of the node; none overlaps a leased one, in neither family. Raises NoSubnet."""
    candidates = [net.network for net in preferred]
    chosen = []
    for address in node.addresses:
        space = config.space(address.public_ip.family)
        if space is None:
            raise NoSubnet(f"the network has no IPv{address.public_ip.family}")
        others = [net for net in leased if net.family == address.public_ip.family]
        usable = [net for net in candidates if space.holds(net) and not any(_overlap(net, other) for other in others)]
        chosen.append(usable[0] if usable else _choose_free(space, others, address.public_ip))
    return tuple(chosen)


def free(space: Space, leased: Iterable[Net]) -> Iterator[Net]:
    """Yields free subnets, the lowest first. `leased` may have any number of networks. Only as many subnets are
    looked at as are taken from the iterator.
    """
    step, family, last = space.step, space.network.family, space.last.value
    value = space.first.value
    for low, high in sorted((net.network.ip.value, net.last.value) for net in leased):
        while value <= last and value + step <= low:
            yield Net(IP(family, value), space.length)
            value += step
        if high >= value:
            value = (high // step + 1) * step
    while value <= last:
        yield Net(IP(family, value), space.length)
        value += step


def _choose_free(space: Space, leased: Iterable[Net], public_ip: IP) -> Net:
    subnets = list(islice(free(space, leased), CHOICE))
    if not subnets:
        raise NoSubnet(f"no subnet of /{space.length} is free in {space.network.text}")
    return subnets[int.from_bytes(digest("subnet", public_ip.text), "big") % len(subnets)]


def _overlap(net: Net, other: Net) -> bool:
    return net.contains(other.ip) or other.contains(net.ip)
