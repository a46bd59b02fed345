"""Keeps the underlay once it is chosen: neither a default route that changes nor an address that is missing for a
moment moves the node, and it returns to its first address when that is back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.agent.backends import backend_of
from cni.agent.logs import log
from cni.agent.uplink.select import NoUnderlay, select_interface
from cni.kernel.rtnl import IFA_F_DADFAILED
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.agent.dataplane.devices import LinkState
    from cni.agent.model.network import NetworkConfig
    from cni.agent.uplink.select import InterfaceSelector, Underlay
    from cni.kernel.rtnl_parse import Link
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import IP, Net

GRACE_SECONDS = 10.0  # a DHCP client or a network manager that starts again needs a few


class _Purpose(Record):
    """The requirements for the interface. `public_ips`: addresses that the store prescribes. `own_address`: other nodes
    have to reach this one by an address of the interface itself, as the backend of this `kind` needs it.
    """

    families: tuple[int, ...]
    kind: str
    own_address: bool
    public_ips: tuple[IP, ...]


class PinnedUnderlay:
    """The underlay that was chosen. `error` says why the interface is not as it should be, empty if it is. `searches`
    is True if a new address on any interface may change the choice.
    """

    def __init__(self, rtnl_socket: RtnlSocket, selector: InterfaceSelector) -> None:
        self.error = ""
        self._rtnl_socket, self._selector = rtnl_socket, selector
        self._purpose: _Purpose | None = None
        self._chosen: Underlay | None = None
        self._first: Underlay | None = None  # which was left only because its address was missing
        self._known_ips: set[IP] = set()  # this host's addresses when the chosen interface last had all of its own
        self._lost_at: float | None = None
        self._seen: tuple[Underlay, tuple[Net, ...]] | None = None  # with all addresses of its link

    @property
    def latest(self) -> Underlay | None:
        """The underlay as `current` last found it."""
        return self._seen[0] if self._seen is not None else None

    @property
    def searches(self) -> bool:
        return bool(self.error) or self._first is not None

    def current(self, config: NetworkConfig, public_ips: tuple[IP, ...]) -> Underlay:
        """Returns the chosen underlay, while it has its addresses, may get them back, or there is no other one.

        Raises NoUnderlay, NetlinkError.
        """
        self.error = ""
        purpose = _Purpose(
            config.families, config.backend.kind, backend_of(config.backend).needs_own_address, public_ips
        )
        if purpose != self._purpose:
            self._purpose, self._chosen, self._first, self._lost_at = purpose, None, None, None
        addresses = self._addresses()
        underlay = self._current(purpose, addresses)
        self._seen = underlay, tuple(addresses.get(underlay.ifindex, ()))
        if not underlay.up and not self.error:
            self.error = f"{underlay.name} is down: other nodes are not reached"
        return underlay

    def as_chosen(self, link: LinkState) -> LinkState:
        """Returns the state in which `current` found the link of the underlay, of one that was read later."""
        if self._seen is None:
            return link
        underlay, addresses = self._seen
        return link._replace(mtu=underlay.mtu, up=underlay.up, addresses=addresses)

    def _current(self, purpose: _Purpose, addresses: dict[int, list[Net]]) -> Underlay:
        if self._chosen is None:
            self._known_ips = {net.ip for nets in addresses.values() for net in nets}
            return self._take(self._select(purpose))
        link = self._link(self._chosen)
        if link is None or not _has(addresses.get(link.ifindex, []), self._chosen.addresses):
            return self._replacement(self._chosen, link, purpose)
        self._lost_at, self._known_ips = None, {net.ip for nets in addresses.values() for net in nets}
        return self._better(addresses, purpose) or self._updated(self._chosen, link)

    def _addresses(self) -> dict[int, list[Net]]:
        addresses: dict[int, list[Net]] = {}
        for info in self._rtnl_socket.all_addresses():
            if not info.flags & IFA_F_DADFAILED:
                addresses.setdefault(info.ifindex, []).append(info.address)
        return addresses

    def _link(self, underlay: Underlay) -> Link | None:
        """Returns the underlay's link, which may have another name by now."""
        link = self._rtnl_socket.find(underlay.name)
        if link is None or link.ifindex != underlay.ifindex:
            link = next((link for link in self._rtnl_socket.links() if link.ifindex == underlay.ifindex), None)
        return link

    def _updated(self, underlay: Underlay, link: Link) -> Underlay:
        self._chosen = underlay._replace(name=link.name, mtu=link.mtu, up=link.up)
        return self._chosen

    def _better(self, addresses: dict[int, list[Net]], purpose: _Purpose) -> Underlay | None:
        """Returns the first underlay once it has all its addresses again, perhaps on a recreated interface, or one that
        is better than a makeshift; None if the chosen one stays.
        """
        first, chosen = self._first, self._chosen
        link = self._rtnl_socket.find(first.name) or self._link(first) if first is not None else None
        if first is not None and link is not None and {*first.addresses} <= {*addresses.get(link.ifindex, [])}:
            self._first = None
            return self._take(first._replace(ifindex=link.ifindex, name=link.name, mtu=link.mtu, up=link.up))
        if chosen is None or not chosen.is_makeshift:
            return None
        try:
            underlay = self._select(purpose)
        except NoUnderlay:
            return None
        return None if underlay.is_makeshift else self._take(underlay)

    def _replacement(self, chosen: Underlay, link: Link | None, purpose: _Purpose) -> Underlay:
        """Returns another underlay, if the chosen one has moved, got a new address, or did not come back in time.

        Else it returns the chosen one, as long as its link exists. Raises NoUnderlay, NetlinkError.
        """
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        try:
            underlay = self._moved(chosen) or self._select(purpose)
        except NoUnderlay as error:
            self.error = str(error)
        else:
            if now - self._lost_at >= GRACE_SECONDS or self._is_successor(chosen, underlay):
                self._first = None if _ips(underlay) == _ips(chosen) else self._first or chosen
                return self._take(underlay)
            self.error = f"{chosen.name} is gone" if link is None else f"{chosen.name} has lost {_text(chosen)}"
            self.error += f": waited for, for {GRACE_SECONDS:.0f} s"
        if link is None:
            raise NoUnderlay(self.error)
        return chosen._replace(name=link.name, mtu=link.mtu, up=link.up)

    def _moved(self, chosen: Underlay) -> Underlay | None:
        """Returns the interface that has the addresses now: a default route may still use a port of the new bridge."""
        selector = self._selector
        if selector.names or selector.patterns or selector.can_reach is not None:
            return None
        ips = _ips(chosen)
        try:
            underlay = select_interface(
                self._rtnl_socket, tuple([ip.family for ip in ips]), selector._replace(public_ips=tuple(ips))
            )
        except NoUnderlay:
            return None
        return underlay._replace(public_ips=chosen.public_ips)

    def _is_successor(self, chosen: Underlay, underlay: Underlay) -> bool:
        """Returns True if the addresses have moved to another interface, or the interface has new ones, which this host
        did not have before.
        """
        if _ips(underlay) == _ips(chosen):
            return True
        return not underlay.is_makeshift and underlay.name == chosen.name and self._known_ips.isdisjoint(_ips(underlay))

    def _take(self, underlay: Underlay) -> Underlay:
        log.info("other nodes are reached by %s", underlay.reason)
        self._chosen, self._lost_at = underlay, None
        return underlay

    def _select(self, purpose: _Purpose) -> Underlay:
        """Selects the interface; addresses from the store count only without addresses from the user."""
        families, public_ips = purpose.families, purpose.public_ips
        if self._selector.public_ips or not public_ips:
            underlay = select_interface(self._rtnl_socket, families, self._selector)
        else:
            try:
                underlay = select_interface(self._rtnl_socket, families, self._selector._replace(public_ips=public_ips))
            except NoUnderlay:  # none has these addresses: they are translated on the way
                underlay = select_interface(self._rtnl_socket, families, self._selector)
                by_family = {ip.family: ip for ip in (*underlay.public_ips, *public_ips)}
                underlay = underlay._replace(public_ips=tuple([by_family[family] for family in families]))
        if purpose.own_address and underlay.public_ips != tuple([net.ip for net in underlay.addresses]):
            raise NoUnderlay(
                f"{purpose.kind} needs a public address that {underlay.name} itself has: choose backend vxlan"
            )
        return underlay


def _has(present: list[Net], wanted: tuple[Net, ...]) -> bool:
    return {net.ip for net in wanted} <= {net.ip for net in present}


def _ips(underlay: Underlay) -> list[IP]:
    return [net.ip for net in underlay.addresses]


def _text(underlay: Underlay) -> str:
    return " or ".join([net.ip.text for net in underlay.addresses])
