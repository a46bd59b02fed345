"""The allocators of addresses: host-local in this process, another plugin executed, or none.

All three are behind one door, that of ipam.main.
"""

from __future__ import annotations

from cni import HOST_LOCAL
from cni.protocol.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from cni.protocol.address import IP
    from cni.protocol.fields import ConfigErrors
    from cni.protocol.plugin_config import PluginConfig
    from cni.protocol.request import Request
    from ipam.lease import Lease

    Alive = Callable[[Lease], bool]

    class Ipam(Protocol):
        """The door. `faults` gathers what is wrong with its part of the configuration, and returns the families of the
        addresses that it would give, as far as they are known; `leased` never fails for it.
        """

        def errors(self, request: Request, config: PluginConfig, found: ConfigErrors) -> set[int]: ...
        def add(self, request: Request, config: PluginConfig, alive: Alive) -> Result: ...
        def delete(self, request: Request, config: PluginConfig, alive: Alive) -> None: ...
        def check(self, request: Request, config: PluginConfig, previous: Result | None) -> None: ...
        def collect(self, config: PluginConfig, valid: set[tuple[str, str]] | None, alive: Alive) -> None: ...
        def status(self, config: PluginConfig, alive: Alive) -> None: ...
        def leased(self, request: Request, config: PluginConfig) -> tuple[IP, ...]: ...


def allocator(ipam_type: str, request: Request) -> Ipam:
    if not ipam_type:
        return NoIpam()
    if ipam_type != HOST_LOCAL:
        from cni.plugins.ipam_exec import ExecIpam

        return ExecIpam(ipam_type, request)
    import ipam.main

    return ipam.main


class NoIpam:
    """A network without addresses: its containers have a link only."""

    def errors(self, request: Request, config: PluginConfig, found: ConfigErrors) -> set[int]:
        """There is no configuration to judge."""
        del request, config, found
        return set()

    def add(self, request: Request, config: PluginConfig, alive: Alive) -> Result:
        del request, config, alive
        return Result()

    def delete(self, request: Request, config: PluginConfig, alive: Alive) -> None:
        """Nothing is leased."""

    def check(self, request: Request, config: PluginConfig, previous: Result | None) -> None:
        """Nothing is leased."""

    def collect(self, config: PluginConfig, valid: set[tuple[str, str]] | None, alive: Alive) -> None:
        """Nothing is leased."""

    def status(self, config: PluginConfig, alive: Alive) -> None:
        """Always ready."""

    def leased(self, request: Request, config: PluginConfig) -> tuple[IP, ...]:
        del request, config
        return ()
