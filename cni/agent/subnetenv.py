"""The file by which the agent tells plugins of this node's subnet, in flannel's words (pkg/subnet, WriteSubnetFile)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cni.config.flannel import parse_subnet_env
from cni.spec.address import IP, Net

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
    """None where there is no such file, or nothing in it to be understood."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return parse_subnet_env(file.read(), path)
    except (OSError, ValueError):
        return None


def write(path: str, text: str) -> bool:
    """Whole, and only where it says something else; tells whether it did. Raises OSError."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        if file.read() == text:
            return False
    folder, name = os.path.split(os.path.abspath(path))
    os.makedirs(folder, mode=0o755, exist_ok=True)
    beside = os.path.join(folder, f".{name}.new")
    with open(beside, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text)
    os.rename(beside, path)
    return True


def remove(path: str) -> None:
    """Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
