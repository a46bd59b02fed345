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
    told: tuple[IP, ...]


class PinnedUnderlay:
    """The underlay that was chosen. `error` says why the interface is not as it should be, empty if it is. `searches`
    is True if a new address on any interface may change the choice.
    """

    def __init__(self, route: RtnlSocket, selector: InterfaceSelector) -> None:
        self.error = ""
        self._route, self._selector = route, selector
        self._purpose: _Purpose | None = None
        self._chosen: Underlay | None = None
        self._first: Underlay | None = None  # which was left only because its address was missing
        self._known_ips: set[IP] = set()  # this host's addresses when the chosen interface last had all of its own
        self._lost_at: float | None = None

    @property
    def searches(self) -> bool:
        return bool(self.error) or self._first is not None

    def current(self, config: NetworkConfig, told: tuple[IP, ...]) -> Underlay:
        """Returns the chosen underlay, while it has its addresses, may get them back, or there is no other one.

        Raises NoUnderlay, NetlinkError.
        """
        self.error = ""
        purpose = _Purpose(config.families, config.backend.kind, backend_of(config.backend).needs_own_address, told)
        if purpose != self._purpose:
            self._purpose, self._chosen, self._first, self._lost_at = purpose, None, None, None
        addresses = self._addresses()
        if self._chosen is None:
            self._known_ips = {net.ip for nets in addresses.values() for net in nets}
            return self._take(self._choose(purpose))
        link = self._link(self._chosen)
        if link is None or not _has(addresses.get(link.ifindex, []), self._chosen.addresses):
            return self._without(self._chosen, link, purpose)
        self._lost_at, self._known_ips = None, {net.ip for nets in addresses.values() for net in nets}
        return self._better(addresses, purpose) or self._as_it_is(self._chosen, link)

    def _addresses(self) -> dict[int, list[Net]]:
        found: dict[int, list[Net]] = {}
        for one in self._route.all_addresses():
            if not one.flags & IFA_F_DADFAILED:
                found.setdefault(one.ifindex, []).append(one.address)
        return found

    def _link(self, underlay: Underlay) -> Link | None:
        """Returns the underlay's link, which may have another name by now."""
        link = self._route.find(underlay.name)
        if link is None or link.ifindex != underlay.ifindex:
            link = next((one for one in self._route.links() if one.ifindex == underlay.ifindex), None)
        return link

    def _as_it_is(self, underlay: Underlay, link: Link) -> Underlay:
        if not link.up:
            self.error = f"{link.name} is down: other nodes are not reached"
        self._chosen = underlay._replace(name=link.name, mtu=link.mtu)
        return self._chosen

    def _better(self, addresses: dict[int, list[Net]], purpose: _Purpose) -> Underlay | None:
        """Returns the first underlay once it has all its addresses again, perhaps on a recreated interface, or one that
        is better than a makeshift; None if the chosen one stays.
        """
        first, chosen = self._first, self._chosen
        link = self._route.find(first.name) or self._link(first) if first is not None else None
        if first is not None and link is not None and {*first.addresses} <= {*addresses.get(link.ifindex, [])}:
            self._first = None
            return self._take(first._replace(ifindex=link.ifindex, name=link.name, mtu=link.mtu))
        if chosen is None or not chosen.is_makeshift:
            return None
        try:
            found = self._choose(purpose)
        except NoUnderlay:
            return None
        return None if found.is_makeshift else self._take(found)

    def _without(self, chosen: Underlay, link: Link | None, purpose: _Purpose) -> Underlay:
        """Returns another underlay, if the chosen one has moved, got a new address, or did not come back in time.

        Else it returns the chosen one, as long as its link exists. Raises NoUnderlay, NetlinkError.
        """
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        try:
            found = self._moved(chosen) or self._choose(purpose)
        except NoUnderlay as error:
            self.error = str(error)
        else:
            if now - self._lost_at >= GRACE_SECONDS or self._is_successor(chosen, found):
                self._first = None if _ips(found) == _ips(chosen) else self._first or chosen
                return self._take(found)
            self.error = f"{chosen.name} is gone" if link is None else f"{chosen.name} has lost {_text(chosen)}"
            self.error += f": waited for, for {GRACE_SECONDS:.0f} s"
        if link is None:
            raise NoUnderlay(self.error)
        return chosen._replace(name=link.name, mtu=link.mtu)

    def _moved(self, chosen: Underlay) -> Underlay | None:
        """Returns the interface that has the addresses now: a default route may still use a port of the new bridge."""
        selector = self._selector
        if selector.names or selector.patterns or selector.can_reach is not None:
            return None
        ips = _ips(chosen)
        try:
            found = select_interface(
                self._route, tuple([ip.family for ip in ips]), selector._replace(public_ips=tuple(ips))
            )
        except NoUnderlay:
            return None
        return found._replace(public_ips=chosen.public_ips)

    def _is_successor(self, chosen: Underlay, found: Underlay) -> bool:
        """Returns True if the addresses have moved to another interface, or the interface has new ones, which this host
        did not have before.
        """
        if _ips(found) == _ips(chosen):
            return True
        return not found.is_makeshift and found.name == chosen.name and self._known_ips.isdisjoint(_ips(found))

    def _take(self, found: Underlay) -> Underlay:
        log.info("other nodes are reached by %s", found.reason)
        self._chosen, self._lost_at = found, None
        return found

    def _choose(self, purpose: _Purpose) -> Underlay:
        """Selects the interface; addresses from the store count only without addresses from the user."""
        families, told = purpose.families, purpose.told
        if self._selector.public_ips or not told:
            found = select_interface(self._route, families, self._selector)
        else:
            try:
                found = select_interface(self._route, families, self._selector._replace(public_ips=told))
            except NoUnderlay:  # none has these addresses: they are translated on the way
                found = select_interface(self._route, families, self._selector)
                by_family = {ip.family: ip for ip in (*found.public_ips, *told)}
                found = found._replace(public_ips=tuple([by_family[family] for family in families]))
        if purpose.own_address and found.public_ips != tuple([net.ip for net in found.addresses]):
            raise NoUnderlay(
                f"{purpose.kind} needs a public address that {found.name} itself has: select_interface backend vxlan"
            )
        return found


def _has(present: list[Net], wanted: tuple[Net, ...]) -> bool:
    return {net.ip for net in wanted} <= {net.ip for net in present}


def _ips(underlay: Underlay) -> list[IP]:
    return [net.ip for net in underlay.addresses]


def _text(underlay: Underlay) -> str:
    return " or ".join([net.ip.text for net in underlay.addresses])
