"""The interface of a backend: how packets get from this node to the subnets of others. One file implements each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cni.protocol.errors import InvalidConfig

if TYPE_CHECKING:
    from cni.agent.dataplane.devices import LinkState
    from cni.agent.model.lease import Endpoint
    from cni.agent.model.network import BackendConfig
    from cni.agent.uplink.select import Underlay
    from cni.kernel.rtnl_socket import RtnlSocket

LEAST_MTU = {4: 68, 6: 1280}  # bytes: RFC 791, RFC 8200


class Device(Protocol):
    """A link of the agent's own, as it has to be; two are equal if the same is wanted."""

    @property
    def name(self) -> str: ...

    def ensure(self, rtnl_socket: RtnlSocket) -> tuple[int, list[str]]:
        """Returns the device's index, and what had to be done to it, in words. Raises NetlinkError."""

    def as_ensured(self, link: LinkState) -> LinkState:
        """Returns the state in which `ensure` has left the device, of one that was read later."""


class Backend(Protocol):
    """A network's backend on this node.

    `vni`: the VNI that no other agent on this node may serve; None if the backend has none.
    `routes_directly`: peers in a network of this node are reached without a device.
    `needs_own_address`: other nodes have to reach this one by an address that its underlay itself has.
    """

    @property
    def vni(self) -> int | None: ...

    @property
    def routes_directly(self) -> bool: ...

    @property
    def needs_own_address(self) -> bool: ...

    def mtu(self, underlay: Underlay, family: int) -> int:
        """Returns the bytes of the largest packet between pods of two nodes. Raises InvalidConfig if too few."""

    def device_name(self, family: int) -> str:
        """Returns the name of the device for a family of the network; empty if the backend has no device."""

    def device(self, underlay: Underlay, own: Endpoint, alias: str, *, offloads: bool) -> Device | None:
        """Returns the device for one family of this node, which bears the alias; None if the backend has no device.
        Unless it `offloads`, the kernel adds the checksums of what it sends. Raises InvalidConfig.
        """


def mtu_behind(config: BackendConfig, underlay: Underlay, family: int, overhead: int = 0) -> int:
    """Returns the MTU for pods whose packets grow by `overhead` bytes. Raises InvalidConfig if it is too small."""
    outer = min(config.mtu or underlay.mtu, underlay.mtu)
    mtu = outer - overhead
    if mtu < LEAST_MTU[family]:
        raise InvalidConfig(f"an MTU of {outer} leaves {mtu} bytes for pods, IPv{family} needs {LEAST_MTU[family]}")
    return mtu
