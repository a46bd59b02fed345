"""What pods need of their node besides ways to others: rules, the file for plugins, the runtime's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent import conflist, device, firewall, subnetenv
from cni.agent.logs import log
from cni.spec.errors import CniError
from cni.spec.record import Record

if TYPE_CHECKING:
    from cni.agent.conflist import Conflist
    from cni.agent.leases import Lease
    from cni.agent.network import NetworkConfig
    from cni.agent.underlay import Underlay, Wish
    from cni.kernel.machine import Machine


class Settings(Record):
    """What the user says of this node."""

    wish: Wish
    masquerades: bool
    fully_random: bool
    forwards: bool
    blackholes: bool
    subnet_file: str
    conflist: Conflist | None = None


class Opening:
    """`faults`: what was wrong at the last opening and kept no pod from being attached."""

    def __init__(self, settings: Settings, machine: Machine) -> None:
        self.faults: list[str] = []
        self._settings, self._machine = settings, machine
        self._rules: firewall.Rules | None = None

    def open(self, config: NetworkConfig, underlay: Underlay, own: Lease) -> list[str]:
        """The runtime's configuration comes last: then pods can be attached. Returns what was not whole.

        Raises CniError, Refused, OSError.
        """
        settings = self._settings
        spaces = tuple([(config.network(way.subnet.family), way.subnet) for way in own.ways])
        self._rules = firewall.Rules(spaces, settings.masquerades, settings.fully_random, settings.forwards)
        done = firewall.ensure(self._machine, self._rules)
        mtu = min(device.pod_mtu(config.backend, underlay, way.subnet.family) for way in own.ways)
        if subnetenv.write(settings.subnet_file, subnetenv.text_of(spaces, mtu, masquerades=settings.masquerades)):
            log.info("wrote %s", settings.subnet_file)
        self._list()
        return done

    @property
    def is_open(self) -> bool:
        """The runtime has a configuration, which an invalid source does not take away."""
        wanted = self._settings.conflist
        return self._rules is not None and (wanted is None or conflist.is_installed(wanted))

    def _list(self) -> None:
        wanted, self.faults = self._settings.conflist, []
        try:
            if wanted is not None and conflist.install(wanted):
                log.info("wrote %s", wanted.path)
        except (CniError, OSError) as error:
            self.faults.append(error.message if isinstance(error, CniError) else str(error))

    def keep_rules(self) -> list[str]:
        """Returns what was not whole. Raises CniError, Refused, OSError."""
        if self._rules is None:
            return []
        return firewall.ensure(self._machine, self._rules) + firewall.let_through(self._machine, self._rules)
