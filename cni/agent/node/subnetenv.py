"""The file by which the agent tells plugins of this node's subnet, in flannel's words (pkg/subnet, WriteSubnetFile)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.config.flannel import parse_subnet_env
from cni.protocol import smallfile
from cni.protocol.address import IP, Net

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.config.flannel import SubnetEnv


def text_of(spaces: Iterable[tuple[Net, Net]], mtu: int, *, masquerades: bool) -> str:
    """`spaces`: by family the network and this node's subnet of it, which is told by its first host's address."""
    lines = []
    for network, subnet in spaces:
        front = "FLANNEL" if network.family == 4 else "FLANNEL_IPV6"
        first = Net(IP(subnet.family, subnet.ip.value + 1), subnet.prefix)
        lines += [f"{front}_NETWORK={network.text}", f"{front}_SUBNET={first.text}"]
    lines += [f"FLANNEL_MTU={mtu}", f"FLANNEL_IPMASQ={str(masquerades).lower()}"]
    return "\n".join([*lines, ""])


def read(path: str) -> SubnetEnv | None:
    """Returns None if the file is missing or invalid."""
    try:
        return parse_subnet_env(smallfile.read(path).decode("utf-8", "replace"), path)
    except (OSError, ValueError):
        return None
