"""subnet.env: the node's subnet and MTU for plugins, in flannel's format (pkg/subnet, WriteSubnetFile)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.config.flannel import parse_subnet_env
from cni.protocol import smallfile
from cni.protocol.address import IP, Net

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.config.flannel import SubnetEnv


def text_of(spaces: Iterable[tuple[Net, Net]], mtu: int, *, masquerades: bool) -> str:
    """Returns the file's text. `spaces`: for each family the network and this node's subnet, written as the address of
    its first host.
    """
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
