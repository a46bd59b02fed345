"""The choice of the IPAM plugin: host-local in this process, a third-party plugin that is executed, or none.

All three have one interface, that of the module ipam.main.
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
        """An IPAM plugin.

        `validate` adds the errors of its part of the configuration, and returns the families of the addresses that it
        would give, as far as they are known. `leased` ignores errors of the configuration.
        """

        def validate(self, request: Request, config: PluginConfig, errors: ConfigErrors) -> set[int]: ...
        def add(self, request: Request, config: PluginConfig, alive: Alive) -> Result: ...
        def delete(self, request: Request, config: PluginConfig, alive: Alive) -> None: ...
        def check(self, request: Request, config: PluginConfig, previous: Result | None) -> None: ...
        def collect(self, config: PluginConfig, valid: set[tuple[str, str]] | None, alive: Alive) -> None: ...
        def status(self, config: PluginConfig, alive: Alive) -> None: ...
        def leased(self, request: Request, config: PluginConfig) -> tuple[IP, ...]: ...


def allocator(ipam_type: str, request: Request) -> Ipam:
    """Returns the IPAM plugin of a type; the type may be empty."""
    if not ipam_type:
        return NoIpam()
    if ipam_type != HOST_LOCAL:
        from cni.plugins.ipam_exec import ExecIpam

        return ExecIpam(ipam_type, request)
    import ipam.main

    return ipam.main


class NoIpam:
    """A network without IPAM: its containers have a link only."""

    def validate(self, request: Request, config: PluginConfig, errors: ConfigErrors) -> set[int]:
        """Adds no errors: there is no configuration."""
        del request, config, errors
        return set()

    def add(self, request: Request, config: PluginConfig, alive: Alive) -> Result:
        del request, config, alive
        return Result()

    def delete(self, request: Request, config: PluginConfig, alive: Alive) -> None:
        """Does nothing: there are no leases."""

    def check(self, request: Request, config: PluginConfig, previous: Result | None) -> None:
        """Does nothing: there are no leases."""

    def collect(self, config: PluginConfig, valid: set[tuple[str, str]] | None, alive: Alive) -> None:
        """Does nothing: there are no leases."""

    def status(self, config: PluginConfig, alive: Alive) -> None:
        """Checks nothing."""

    def leased(self, request: Request, config: PluginConfig) -> tuple[IP, ...]:
        del request, config
        return ()
