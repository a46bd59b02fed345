"""The backends of a network: `vxlan` and `host-gw`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.backends.hostgw import HostGateway
from cni.agent.backends.vxlan import Vxlan
from cni.agent.model.network import HOST_GW, VXLAN

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.agent.backends.base import Backend
    from cni.agent.model.network import BackendConfig

BACKENDS: dict[str, Callable[[BackendConfig], Backend]] = {VXLAN: Vxlan, HOST_GW: HostGateway}


def backend_of(config: BackendConfig) -> Backend:
    """Returns the backend that a network's configuration names."""
    return BACKENDS[config.kind](config)
