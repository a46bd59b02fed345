"""host-gw: a route to each node in a network of this one, and no device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.backends.base import mtu_behind

if TYPE_CHECKING:
    from cni.agent.backends.base import Device
    from cni.agent.model.lease import Endpoint
    from cni.agent.model.network import BackendConfig
    from cni.agent.uplink.select import Underlay


class HostGateway:
    """The backend `host-gw`."""

    vni = None
    routes_directly = True
    needs_own_address = True  # the next hop of other nodes' routes

    def __init__(self, config: BackendConfig) -> None:
        self._config = config

    def mtu(self, underlay: Underlay, family: int) -> int:
        return mtu_behind(self._config, underlay, family)

    def device_name(self, family: int) -> str:  # noqa: ARG002
        return ""

    def device(self, underlay: Underlay, own: Endpoint, alias: str, *, offloads: bool) -> Device | None:  # noqa: ARG002
        return None
