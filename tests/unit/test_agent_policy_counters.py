"""Tests the counters of denied packets: all chains that deny a direction count; errors of the kernel are no news."""

from __future__ import annotations

from errno import EPROTONOSUPPORT
from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane import policy_counters
from cni.agent.dataplane.policy_counters import add_counters, denied_packets, rule_packets
from cni.agent.kept import KEPT_SECONDS, PAUSES
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
    assert denied_packets() == {("ingress",): 107, ("egress",): 5}
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


def test_rules_of_a_policy_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two protocols is two rules of the table, and so is one of a tier that is in two lists of policies."""

    def dump(_: int, payload: bytes) -> list[bytes]:
        assert nft.NFTA_RULE_CHAIN not in attributes(payload, nft.NFGENMSG.size)
        return [
            counted("policy/shop/web-only/in", "ingress 0 aaaaaaaa", 3),
            counted("policy/shop/web-only/in", "ingress 0 bbbbbbbb", 4),
            counted("policy/shop/web-only/in", "ingress 1 cccccccc", 0),
            counted("policy/shop/web-only/out", "egress 0 aaaaaaaa", 5),
            counted("admin/in/12345678", "guard ingress 2 aaaaaaaa", 6),
            counted("admin/in/87654321", "guard ingress 2 aaaaaaaa", 1),
            counted("class/in/12345678", "aaaaaaaa", 9),
            counted("denied-in", "aaaaaaaa", 9),
        ]

    monkeypatch.setattr(policy_counters, "Netlink", Kernel(dump))
    assert rule_packets() == {
        ("shop/web-only", "ingress", "0"): 7,
        ("shop/web-only", "ingress", "1"): 0,
        ("shop/web-only", "egress", "0"): 5,
        ("guard", "ingress", "2"): 7,
    }


def test_a_flood_of_requests_reads_the_table_once_a_second_and_more_seldom_if_that_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that answers probes reads it."""
    pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")
    from cni.agent.metrics import Metrics

    now, takes, reads = [1000.0], [0.0], list[float]()
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def dump(_: int, payload: bytes) -> list[bytes]:
        if nft.NFTA_RULE_CHAIN in attributes(payload, nft.NFGENMSG.size):
            return []
        reads.append(now[0])
        now[0] += takes[0]
        return [counted("policy/shop/web-only/in", "ingress 0 aaaaaaaa", len(reads))]

    monkeypatch.setattr(policy_counters, "Netlink", Kernel(dump))
    metrics = Metrics()
    add_counters(metrics, of_rules=True)
    for _ in range(3):
        reads.clear()
        for _ in range(100):
            assert b'rule="0"} 1.0\n' in metrics.text()
        assert len(reads) == 1
        now[0] += KEPT_SECONDS
    takes[0] = 2.0
    metrics.text()
    assert len(reads) == 2
    now[0] += 2 * PAUSES - 1
    metrics.text()
    assert len(reads) == 2
    now[0] += 1
    metrics.text()
    assert len(reads) == 3


def counted(chain: str, comment: str, packets: int) -> bytes:
    """Returns a rule as the kernel lists it."""
    counter = nft_rules.expression("counter", attribute(1, bytes(8)), attribute(2, packets.to_bytes(8, "big")))
    return nft_rules.append_rule(nft.Chain(nft.NFPROTO_INET, "podwire-policy", chain), counter, comment)[2]


def test_rules_are_not_counted_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")
    from cni.agent.metrics import Metrics

    monkeypatch.setattr(policy_counters, "Netlink", Kernel())
    metrics = Metrics()
    add_counters(metrics, of_rules=False)
    assert b"podwired_policy_denied_packets_total" in metrics.text()
    assert b"podwired_policy_rule_packets" not in metrics.text()
