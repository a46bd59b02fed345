"""The order of an interface's addresses: a node's own come before virtual ones, which move from node to node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.kernel.rtnl import IFA_F_NOPREFIXROUTE, IFA_F_PERMANENT, IFA_F_TEMPORARY

if TYPE_CHECKING:
    from cni.kernel.rtnl_parse import AddressInfo
    from cni.protocol.address import IP


def place(ip: IP, preferred: list[IP]) -> int:
    return preferred.index(ip) if ip in preferred else len(preferred)


def rank(info: AddressInfo, others: list[AddressInfo], sources: list[IP]) -> tuple[bool | int, ...]:
    """Returns a key by which the preferred address sorts first.

    NetworkManager sets noprefixroute for the node's own addresses, so a route's source and the order count more.
    """
    ip = info.address.ip
    return (
        ip.is_loopback,
        ip.is_link_local,
        is_virtual(info),
        place(ip, sources),
        _is_static_beside_dynamic(info, others),
        # In IPv4 the flag for temporary is that of a subnet's second address.
        ip.family == 4 and bool(info.flags & IFA_F_TEMPORARY),
        bool(info.flags & IFA_F_NOPREFIXROUTE),
        not info.flags & IFA_F_PERMANENT,
        bool(info.flags & IFA_F_TEMPORARY),
    )


def is_virtual(info: AddressInfo) -> bool:
    """True for what keepalived, kube-vip and their like add: an address without a network, and without an end."""
    return info.address.prefix == info.address.ip.bits and bool(info.flags & IFA_F_PERMANENT)


def _is_static_beside_dynamic(info: AddressInfo, others: list[AddressInfo]) -> bool:
    """True in IPv4 for an address beside one of DHCP in the same network. In IPv6 nodes have both kinds."""
    address = info.address
    if address.family == 6 or not info.flags & IFA_F_PERMANENT:
        return False
    return any(other.address.network == address.network and not other.flags & IFA_F_PERMANENT for other in others)
