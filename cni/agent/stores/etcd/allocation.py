"""Which subnets a node takes: those it had before where they still fit, else free ones that its address chooses."""

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

CHOICE = 100  # nodes that begin at the same moment choose among so many, and rarely the same


class NoSubnet(StoreError):
    """All subnets are leased; the text names the network."""


def fits(config: NetworkConfig, subnets: tuple[Net, ...]) -> bool:
    """A lease of these could be given out today."""
    spaces = [config.space(family) for family in config.families]
    return len(subnets) == len(spaces) and all(
        space is not None and space.holds(subnet) for space, subnet in zip(spaces, subnets, strict=True)
    )


def choose(config: NetworkConfig, node: Node, taken: Collection[Net], wished: Iterable[Net]) -> tuple[Net, ...]:
    """One for each end of the node; none overlaps any that is taken, in neither family. Raises NoSubnet."""
    wishes = [net.network for net in wished]
    chosen = []
    for address in node.addresses:
        space = config.space(address.public_ip.family)
        if space is None:
            raise NoSubnet(f"the network has no IPv{address.public_ip.family}")
        others = [net for net in taken if net.family == address.public_ip.family]
        time_to_live = [net for net in wishes if space.holds(net) and not any(_overlap(net, other) for other in others)]
        chosen.append(time_to_live[0] if time_to_live else _of_free(space, others, address.public_ip))
    return tuple(chosen)


def free(space: Space, taken: Iterable[Net]) -> Iterator[Net]:
    """The lowest first. `taken` may be of any length; as many subnets as are asked for are looked at, not all."""
    step, family, last = space.step, space.network.family, space.last.value
    value = space.first.value
    for low, high in sorted((net.network.ip.value, net.last.value) for net in taken):
        while value <= last and value + step <= low:
            yield Net(IP(family, value), space.length)
            value += step
        if high >= value:
            value = (high // step + 1) * step
    while value <= last:
        yield Net(IP(family, value), space.length)
        value += step


def _of_free(space: Space, taken: Iterable[Net], public_ip: IP) -> Net:
    found = list(islice(free(space, taken), CHOICE))
    if not found:
        raise NoSubnet(f"no subnet of /{space.length} is free in {space.network.text}")
    return found[int.from_bytes(digest("subnet", public_ip.text), "big") % len(found)]


def _overlap(one: Net, other: Net) -> bool:
    return one.contains(other.ip) or other.contains(one.ip)
