"""Tests the counters of denied packets: all chains that deny a direction count; errors of the kernel are no news."""

from __future__ import annotations

from errno import EPROTONOSUPPORT
from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane import policy_counters
from cni.agent.dataplane.policy_counters import denied_packets
from cni.kernel import nft, nft_rules
from cni.kernel.netlink import Interrupted, NetlinkError, attribute, attributes

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTED = {"denied-in": 7, "denied-out": 5, "pending-in": 100, "pending-out": 0}


class Kernel:
    """A table whose chains have counted so many packets, each with a rule that counts nothing."""

    def __init__(self, dump: Callable[[int, bytes], list[bytes]] | None = None) -> None:
        self.dump = dump or self._dump
        self.closed = False

    def __call__(self, _: int) -> Kernel:
        return self

    @staticmethod
    def _dump(_: int, payload: bytes) -> list[bytes]:
        name = nft.name_of(attributes(payload, nft.NFGENMSG.size)[nft.NFTA_RULE_CHAIN])
        chain = nft.Chain(nft.NFPROTO_INET, "podwire-policy", name)
        count = attribute(2, COUNTED[name].to_bytes(8, "big"))
        counter = nft_rules.expression("counter", attribute(1, bytes(8)), count)
        return [nft_rules.append_rule(chain, part, "")[2] for part in (counter, nft_rules.accept())]

    def close(self) -> None:
        self.closed = True


def test_packets_are_counted_by_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel()
    monkeypatch.setattr(policy_counters, "Netlink", kernel)
    assert denied_packets() == {"ingress": 107, "egress": 5}
    assert kernel.closed


@pytest.mark.parametrize("error", [NetlinkError(EPROTONOSUPPORT, ""), Interrupted("8 times"), OSError(1, "no")])
def test_a_kernel_that_does_not_tell_counts_nothing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[bytes]:
        raise error

    kernel = Kernel(refuse)
    monkeypatch.setattr(policy_counters, "Netlink", kernel)
    assert denied_packets() == {}
    assert kernel.closed


def test_without_a_socket_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> Kernel:
        raise OSError(EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(policy_counters, "Netlink", refuse)
    assert denied_packets() == {}
