"""The interface that was chosen, held on to: a default route that moves does not move the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.logs import log
from cni.agent.network import VXLAN
from cni.agent.underlay import NoUnderlay, choose

if TYPE_CHECKING:
    from cni.agent.network import NetworkConfig
    from cni.agent.underlay import Underlay, Wish
    from cni.kernel.route import Route
    from cni.spec.address import IP


class Wire:
    """`fault`: why the interface is not as it should be; any other that gets an address may be better then."""

    def __init__(self, route: Route, wish: Wish) -> None:
        self.fault = ""
        self._route, self._wish = route, wish
        self._chosen: Underlay | None = None

    def forget(self) -> None:
        """What it was chosen for has changed."""
        self._chosen = None

    def find(self, config: NetworkConfig, told: tuple[IP, ...]) -> Underlay:
        """The one that was chosen, as long as it is there with its addresses, or there is no other.

        `told`: addresses that the store wants. Raises NoUnderlay, Refused.
        """
        self.fault = ""
        before = self._as_it_is(self._chosen) if self._chosen is not None else None
        if before is not None and self._is_whole(before):
            return before
        try:
            found = self._choose(config, told)
        except NoUnderlay as error:
            self.fault = str(error)
            if before is None:
                raise
            return before
        log.info("other nodes are reached by %s", found.reason)
        self._chosen = found
        return found

    def _as_it_is(self, underlay: Underlay) -> Underlay | None:
        """None where it is gone."""
        link = self._route.find(underlay.name)
        return underlay._replace(mtu=link.mtu) if link is not None and link.ifindex == underlay.ifindex else None

    def _is_whole(self, underlay: Underlay) -> bool:
        return {one.address for one in self._route.addresses(underlay.name)}.issuperset(underlay.addresses)

    def _choose(self, config: NetworkConfig, told: tuple[IP, ...]) -> Underlay:
        """What the store wants counts where the user wants nothing."""
        if self._wish.public_ips or not told:
            found = choose(self._route, config.families, self._wish)
        else:
            try:
                found = choose(self._route, config.families, self._wish._replace(public_ips=told))
            except NoUnderlay:  # none has these addresses: they are translated on the way
                found = choose(self._route, config.families, self._wish)
                by_family = {ip.family: ip for ip in (*found.public_ips, *told)}
                found = found._replace(public_ips=tuple([by_family[family] for family in config.families]))
        if config.backend.kind != VXLAN and found.public_ips != tuple([net.ip for net in found.addresses]):
            raise NoUnderlay(f"host-gw needs a public address that {found.name} itself has: choose backend vxlan")
        return found
