"""Netlink messages of others: whoever is root in a namespace may send to the sockets there, podwire's included."""

from __future__ import annotations

import socket
import struct
from errno import ECONNREFUSED, EPERM
from typing import TYPE_CHECKING

from cni.kernel.events import RTNLGRP_LINK, Events
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni.kernel.nft import all_chains
from cni.kernel.rtnl_socket import RtnlSocket

if TYPE_CHECKING:
    from tests.machine import Machine

ZEROS = struct.pack("=IHHII", 0, 0, 0, 1, 0)


def sent_to(port: int, protocol: int) -> int:
    """The errno of an attempt to send 10 messages to a socket."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as attacker:
        try:
            for _ in range(10):
                attacker.sendto(ZEROS, (port, 0))
        except OSError as error:
            return error.errno or 0
    return 0


def attacked() -> list[object]:
    route, rules = RtnlSocket(), Netlink(NETLINK_NETFILTER)
    events = Events(0, (RTNLGRP_LINK,), route)
    refused = [sent_to(route.port, 0), sent_to(rules.port, NETLINK_NETFILTER), sent_to(events.port, 0)]
    received = [*refused, [link.name for link in route.links()], rules.dump(*all_chains()), events.read()]
    for netlink_socket in (route, rules, events):
        netlink_socket.close()
    return received


def test_messages_of_others_are_refused(machine: Machine) -> None:
    *refused, links, chains, changes = machine.call(attacked)
    assert set(refused) <= {ECONNREFUSED, EPERM}
    assert (links, chains, changes) == (["lo"], [], [])
