"""Drift detection: decides for every notification of the kernel whether it contradicts the desired state.

Most notifications are about containers that come and go, or echoes of the agent's own changes, which match it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.dataplane.state import PRIORITY, PROTOCOL, NextHop, is_ours
from cni.effects import forward_accept
from cni.kernel import nft, nft_rules, rtnl, rtnl_overlay, rtnl_parse
from cni.kernel.netlink import attributes, unpacked
from cni.kernel.rtnl import AF_BRIDGE, IFINFO
from cni.protocol.address import IP, ip_family

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.agent.dataplane.devices import LinkState
    from cni.agent.dataplane.state import ForwardingState
    from cni.kernel.rtnl_overlay import KernelRoute
    from cni.protocol.address import Net

NFTA_TABLE = 1  # the table's name, in the messages of tables, chains and rules alike
# As containers come and go, elements change in other tables.
NFT_ELEMENTS = (nft.NFT_MSG_NEWSETELEM, nft.NFT_MSG_DELSETELEM)
# Rules', chains' and tables' messages.
NFT_RULES = (nft_rules.NFT_MSG_NEWCHAIN, nft_rules.NFT_MSG_DELCHAIN, nft_rules.NFT_MSG_DELRULE, nft.NFT_MSG_DELTABLE)


class Drift:
    """The desired state of the kernel, as it was last applied."""

    def __init__(self, table: str) -> None:
        """`table`: the name of the agent's nftables table."""
        self._table = table
        self.searches = True  # an address that comes anywhere may change the choice of the interface
        self.links: dict[int, LinkState] = {}
        self.devices: dict[int, int] = {}  # the family of a tunnel's device, by its index
        self.desired: dict[int, ForwardingState] = {}
        self.subnets: tuple[Net, ...] = ()  # this node's
        self.networks: frozenset[Net] = frozenset()  # those that are served, or were
        self._pods = False
        self.spaces: dict[int, tuple[Net, Net]] = {}  # by family: the network, and this node's subnet of it
        self.other_links: frozenset[int] = frozenset()  # other links whose networks matter while they are up
        self.routes_directly = False  # peers are reached directly by any network of this node
        self.waits_for_link = False  # for the removal of another program's link

    def follow(self, spaces: Sequence[tuple[Net, Net]], connected: Iterable[tuple[Net, int]]) -> None:
        """Takes in each network with this node's subnet of it, and networks that the node is connected to, by the
        indexes of their links.
        """
        self.subnets = tuple([subnet for _, subnet in spaces])
        self.spaces = {subnet.family: (network, subnet) for network, subnet in spaces}
        self.other_links = frozenset([index for net, index in connected if self.is_rival(net)])

    @property
    def ports(self) -> set[int]:
        """The UDP ports of the tunnel."""
        return {link.tunnel.port for link in self.links.values() if link.tunnel is not None}

    def take_pods(self) -> bool:
        """True once when an interface has got an address of this node's subnets: pods are behind it."""
        came, self._pods = self._pods, False
        return came

    def disturbed(self, kind: int, payload: bytes) -> str:
        """Returns how an rtnetlink message contradicts the desired state; empty if it does not. Raises Malformed."""
        if kind in (rtnl.RTM_NEWLINK, rtnl.RTM_DELLINK):
            return self._link(kind, payload)
        if kind in (rtnl.RTM_NEWADDR, rtnl.RTM_DELADDR):
            return self._address(kind, payload)
        if kind in (rtnl_overlay.RTM_NEWNEIGH, rtnl_overlay.RTM_DELNEIGH):
            return self._entry(kind, payload)
        if kind in (rtnl.RTM_NEWROUTE, rtnl_overlay.RTM_DELROUTE):
            return self._route(kind, payload)
        return ""

    def _link(self, kind: int, payload: bytes) -> str:
        _, _, index, flags, _ = unpacked(IFINFO, payload)
        link = self.links.get(index)
        if index in self.other_links and (kind == rtnl.RTM_DELLINK or not flags & rtnl.IFF_UP):
            return "a network of this node went"
        if self.waits_for_link and kind == rtnl.RTM_DELLINK:
            return "a link went"
        if link is None:
            names = {state.name for state in self.links.values()}
            return "a link came" if kind == rtnl.RTM_NEWLINK and rtnl_parse.parse_link(payload).name in names else ""
        if kind == rtnl.RTM_DELLINK:
            return f"{link.name} is gone"
        return "" if link.matches(payload) else f"{link.name} has changed"

    def _address(self, kind: int, payload: bytes) -> str:
        info = rtnl_parse.parse_address(payload)
        link, came = self.links.get(info.ifindex), kind == rtnl.RTM_NEWADDR
        self._pods |= came and link is None and any(subnet.contains(info.address.ip) for subnet in self.subnets)
        if link is None or info.address.ip.is_ipv6_link_local:  # those come and go by themselves
            return "an address came" if self.searches else ""
        if came == (info.address in link.addresses):
            return ""
        return f"{link.name} has {'got' if came else 'lost'} {info.address.text}"

    def _entry(self, kind: int, payload: bytes) -> str:
        family, index, _, _, _ = unpacked(rtnl_overlay.NDMSG, payload)
        desired = self.desired.get(self.devices.get(index, 0))
        entry = rtnl_overlay.parse_neighbour(payload) if desired is not None else None
        if desired is None or entry is None:
            return ""
        present = kind == rtnl_overlay.RTM_NEWNEIGH and entry.permanent
        if family == AF_BRIDGE:
            present = present and entry.is_plain
            is_right = present == ((entry.mac, entry.ip) in desired.fdb)
        else:  # a deletion is reported without the MAC address, as a failed entry
            mac = desired.neighbours.get(entry.ip)
            is_right = not present if mac is None else present and entry.mac == mac
        return "" if is_right else f"an entry for {entry.ip.text} has changed"

    def _route(self, kind: int, payload: bytes) -> str:
        route = rtnl_overlay.parse_kernel_route(payload)
        if self.searches and not route.dst.prefix:
            return "a default route came or went"
        desired = self.desired.get(ip_family(payload[0]))
        if desired is None or not route.main:
            return ""
        if route.dst in desired.routes:
            return self._peer_route(kind, route, desired.routes[route.dst])
        if route.gw is None:
            return f"{route.dst.text} came or went" if self._is_network(route) else ""
        ours = is_ours(route.protocol, route.dst, self.networks) or route.ifindex in self.devices
        return f"a route to {route.dst.text} came" if ours and kind == rtnl.RTM_NEWROUTE else ""

    def _peer_route(self, kind: int, route: KernelRoute, desired: NextHop) -> str:
        """Compares a route to a peer's subnet; another program's matters if it wins or shares the traffic."""
        priority = PRIORITY[route.dst.family]
        if route.priority > priority and route.protocol != PROTOCOL:
            return ""
        next_hop = NextHop(route.gw or IP(0, 0), route.ifindex, route.on_link, route.is_plain)
        is_right = next_hop == desired and route.priority in (0, priority)  # 0: not reported
        return f"the route to {route.dst.text} has changed" if is_right == (kind != rtnl.RTM_NEWROUTE) else ""

    def _is_network(self, route: KernelRoute) -> bool:
        """Returns True for a route to a network of this node that decides which peers are served, or how."""
        if route.ifindex in self.devices:
            return False
        if route.ifindex in self.links:
            return True
        if route.dst.prefix in (0, route.dst.ip.bits):  # of single containers
            return False
        return self.routes_directly or self.is_rival(route.dst)

    def is_rival(self, net: Net) -> bool:
        """True for a network of this node that is in the pods' network, and not in the node's own subnet."""
        network, own = self.spaces.get(net.ip.family, (None, None))
        if network is None or own is None or (own.prefix <= net.prefix and own.contains(net.ip)):
            return False
        return network.contains(net.ip) or net.contains(network.ip)

    def rules_disturbed(self, kind: int, payload: bytes) -> bool:
        """True if an nfnetlink message shows that own rules may be gone, or that a chain may drop what it forwards."""
        return _is_of(kind, NFT_RULES) and table_of(kind, payload) in (self._table, forward_accept.TABLE)

    def elements_disturbed(self, kind: int, payload: bytes) -> bool:
        """True if an nfnetlink message shows that somebody has changed or removed the agent's sets."""
        return _is_of(kind, NFT_ELEMENTS) and table_of(kind, payload) == self._table


def _is_of(kind: int, kinds: tuple[int, ...]) -> bool:
    return kind >> 8 == nft.NFNL_SUBSYS_NFTABLES and kind & 0xFF in kinds


def table_of(kind: int, payload: bytes) -> str:
    """Returns the table that an nfnetlink message is about; empty if it is about none. Raises Malformed."""
    if kind >> 8 != nft.NFNL_SUBSYS_NFTABLES:
        return ""
    return nft.name_of(attributes(payload, nft.NFGENMSG.size).get(NFTA_TABLE))
