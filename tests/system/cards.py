"""Network cards that fail, between a node and the wire."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.machine import until
from tests.system.programs import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.nodes import Node

CARD = Path(__file__).parent / "broken_nic.py"
# Only the machine's own address on the wire is to be answered for, not by these ports as well.
INSERT = """
ip link add card0 type veth peer name card1
for port in {port} card0; do sysctl -qw net.ipv4.conf.$port.arp_ignore=1; done
ip link set {port} nomaster
ip link set card1 master wire up
ip link set card0 up
"""


@contextmanager
def broken_card(node: Node, mac: str = "") -> Iterator[None]:
    """Gives a node a card that adds no checksums inside of tunnels, nor in what it sends to the MAC address."""
    world, port = node.cluster.machine, f"port-{node.name}"
    world.run("sh", "-ec", INSERT.format(port=port))
    card = Program(world, "card", sys.executable, str(CARD), port, "card0", mac)
    until(lambda: "joined" in card.log, "frames are passed on")
    yield
    card.end()
    world.run("sh", "-ec", f"ip link delete card0; ip link set {port} master wire")
