"""Publishes the node's pod network: firewall rules, subnet.env for plugins, the runtime's conflist."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.agent.backends import backend_of
from cni.agent.dataplane import tunnel_filter
from cni.agent.dataplane.tunnel_filter import Tunnel, TunnelFilter
from cni.agent.logs import error_text, log
from cni.agent.node import conflist, files, flannel_rules, masquerade, subnetenv
from cni.effects.journal import FAILURES
from cni.kernel.netlink import NetlinkError
from cni.protocol.errors import CniError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.model.lease import Lease
    from cni.agent.model.network import NetworkConfig
    from cni.agent.node.conflist import Conflist
    from cni.agent.runtime.instance import Instance
    from cni.agent.uplink.select import InterfaceSelector, Underlay
    from cni.effects.host import Host
    from cni.protocol.address import Net


class Settings(Record):
    """The user's settings of this node, and the networks that it had when the agent last ran. `may_attach` returns True
    once the node's first pod can be attached.
    """

    instance: Instance
    networks: tuple[Net, ...]
    selector: InterfaceSelector
    masquerades: bool
    fully_random: bool
    forwards: bool
    blackholes: bool
    filters: bool
    offloads: bool
    may_attach: Callable[[], bool]
    subnet_file: str
    conflist: Conflist | None = None


class NodePublisher:
    """The rules and files by which pods of this node are attached. `errors`: why the runtime's configuration could not
    be installed, which keeps no pod from being attached. `is_held`: the files wait until the first pod may be;
    `is_barred`: until the node has its devices.
    """

    def __init__(self, settings: Settings, host: Host) -> None:
        self.errors: list[str] = []
        self.is_held = self.is_barred = False
        self._settings, self._host = settings, host
        self.filter = TunnelFilter(host, settings.instance.name)
        self._rules: masquerade.Rules | None = None
        self._asked: masquerade.Rules | None = None
        self._confined: object = None  # what the filter had to hold at the last sync
        self._unfiltered = ""  # why there is no filter
        self._underlay = ""
        self._has_taken_over = False

    def publish(self, config: NetworkConfig, underlay: Underlay, own: Lease, *, has_devices: bool) -> list[str]:
        """Loads the rules and writes subnet.env, with which pods may be attached. Returns what was incomplete.

        It needs no peer, of which there may be thousands; without devices a node's first pod has to wait. Raises
        CniError, NetlinkError, OSError.
        """
        settings = self._settings
        spaces = tuple([(config.network(endpoint.subnet.family), endpoint.subnet) for endpoint in own.endpoints])
        self._rules = masquerade.Rules(
            settings.instance.name,
            spaces,
            settings.masquerades,
            settings.fully_random,
            settings.forwards,
            _tunnel(config) if settings.filters else None,
        )
        self._asked, self._underlay = self._rules, underlay.name
        if settings.instance.predecessor:  # whose filter knows only the peers of its time
            masquerade.remove_table(self._host, settings.instance.predecessor)
            settings.instance.predecessor = ""
        done = self._load()
        is_first = not os.path.exists(settings.subnet_file)
        was_held, self.is_held = self.is_held, is_first and not settings.may_attach()
        self.is_barred = is_first and not has_devices
        if self.is_held:
            if not was_held:
                log.info("%s is written once NetworkPolicy is enforced", settings.subnet_file)
            return done
        if self.is_barred:
            return done
        mtu = min(backend_of(config.backend).mtu(underlay, endpoint.subnet.family) for endpoint in own.endpoints)
        if files.write(settings.subnet_file, subnetenv.text_of(spaces, mtu, masquerades=settings.masquerades)):
            log.info("wrote %s", settings.subnet_file)
        return done

    @property
    def rules(self) -> masquerade.Rules | None:
        """The rules that were asked for at the last `publish`."""
        return self._asked

    @property
    def is_due(self) -> bool:
        """The files are to be written now."""
        return self.is_held and self._settings.may_attach()

    @property
    def is_published(self) -> bool:
        """The runtime has a configuration, which an invalid source does not take away."""
        wanted = self._settings.conflist
        if self._rules is None or self.is_held or self.is_barred:
            return False
        return wanted is None or conflist.is_installed(wanted)

    def install_conflist(self) -> None:
        """Installs the runtime's configuration, which makes it attach pods: once peers are reached."""
        wanted, self.errors = self._settings.conflist, []
        try:
            if wanted is not None and not (self.is_held or self.is_barred) and conflist.install(wanted):
                log.info("wrote %s", wanted.path)
        except (CniError, OSError) as error:
            self.errors.append(error_text(error))

    def ensure_rules(self) -> list[str]:
        """Returns what was incomplete. Raises CniError, NetlinkError, OSError."""
        if self._rules is None:
            return []
        done = self._load() + self._confine()
        done += masquerade.ensure_forward_accept(self._host, self._rules)
        self._take_over([network for network, _ in self._rules.spaces])
        return done

    def _take_over(self, networks: list[Net]) -> None:
        """Removes flanneld's rules, once: an agent that comes after this one may have rules."""
        if self._has_taken_over:
            return
        self._has_taken_over = True
        try:
            for text in flannel_rules.remove(self._host, networks):
                log.info("removed %s", text)
        except FAILURES as error:
            log.warning("flanneld's rules are left: %s", error_text(error))

    def _load(self) -> list[str]:
        """Loads the rules, without the filter if that is refused: the next `publish` tries again."""
        assert self._rules is not None
        try:
            done = masquerade.ensure(self._host, self._rules)
        except (CniError, NetlinkError, OSError) as error:
            if self._rules.tunnel is None:
                raise
            self._warn(error_text(error))
            self._rules = self._rules._replace(tunnel=None)
            done = masquerade.ensure(self._host, self._rules)
        if done:
            self.filter.forget()
        return done

    def _warn(self, reason: str) -> None:
        if reason != self._unfiltered:
            log.warning("tunnel packets are not filtered (--tunnel-filter=false disables the filter): %s", reason)
        self._unfiltered = reason

    def _confine(self) -> list[str]:
        rules = self._rules
        if rules is None or rules.tunnel is None:
            return []
        others = (*rules.tunnel.devices, self._underlay)
        pods = tunnel_filter.pod_links(self._host.rtnl, [subnet for _, subnet in rules.spaces], others)
        before, self._confined = self._confined, (frozenset(pods), frozenset(self.filter.ports), self.filter.peers)
        done = self.filter.confine(pods)
        return done if before == self._confined else []  # pods that come and peers that go are nothing that was broken


def _tunnel(config: NetworkConfig) -> Tunnel | None:
    backend = backend_of(config.backend)
    if backend.vni is None:
        return None
    return Tunnel(backend.vni, tuple([backend.device_name(family) for family in config.families]))
