"""The file by which the agent tells plugins of this node's subnet, in flannel's words (pkg/subnet, WriteSubnetFile)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cni.config.flannel import parse_subnet_env
from cni.protocol import folders, smallfile
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
    """None where there is no such file, or nothing in it to be understood."""
    try:
        return parse_subnet_env(smallfile.read(path).decode("utf-8", "replace"), path)
    except (OSError, ValueError):
        return None


def write(path: str, text: str) -> bool:
    """Whole, and only where it says something else; tells whether it did. Raises OSError."""
    with contextlib.suppress(OSError):
        if smallfile.read(path) == text.encode():
            return False
    folder, name = os.path.split(os.path.abspath(path))
    folders.make(folder, 0o755)
    beside = os.path.join(folder, f".{name}.new")
    remove(beside)  # of a writer that was killed, or what somebody has put there
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o644)
        file.write(text)
    os.rename(beside, path)
    return True


def remove(path: str) -> None:
    """Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
