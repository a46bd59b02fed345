"""Connections of an address that has another holder now: the table lets known connections pass, so they have to end."""

from __future__ import annotations

from errno import EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT
from typing import TYPE_CHECKING

from cni.kernel import connections
from cni.kernel.netlink import NetlinkError

if TYPE_CHECKING:
    from cni.kernel.netlink import Netlink

LACKING = (EINVAL, EOPNOTSUPP, EPROTONOSUPPORT)  # without nf_conntrack_netlink, no connection can be ended


def forget(netfilter: Netlink, address: bytes) -> None:
    """Ends all connections from and to an address. Raises NetlinkError, Interrupted, OSError, Malformed."""
    for dump in connections.connections_of(address):
        try:
            answers = netfilter.dump(*dump)
        except NetlinkError as error:
            if error.errno in LACKING:
                return
            raise
        for answer in [answer for answer in answers if address in connections.ends_of(answer)]:
            try:
                netfilter.request(*connections.delete_connection(connections.parse_connection(answer)))
            except NetlinkError as error:
                if error.errno != ENOENT:  # it has ended by itself
                    raise
