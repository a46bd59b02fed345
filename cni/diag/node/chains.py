"""Chains of netfilter in this network namespace, those of iptables-nft included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.node.here import opened_host
from cni.kernel import nft
from cni.kernel.netlink import NetlinkError

if TYPE_CHECKING:
    from cni.kernel.nft import Chain


def chains() -> list[Chain]:
    """Returns all chains; a kernel without nftables has none. Raises NetlinkError, OSError."""
    with opened_host() as host:
        try:
            return [nft.parse_chain(answer) for answer in host.netfilter.dump(*nft.all_chains())]
        except (NetlinkError, OSError) as error:
            if error.errno in nft.NOT_FOUND_OR_EINVAL:
                return []
            raise
