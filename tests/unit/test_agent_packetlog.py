"""Tests the thread that reads denied packets: errors are told once, and it ends when it is told to."""

from __future__ import annotations

import os
import threading
from errno import EBUSY, EINVAL, EPERM

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.metrics import Metrics
from cni.agent.policy.denials import PacketDenied
from cni.agent.runtime import packetlog
from cni.agent.runtime.packetlog import DeniedPackets
from cni.kernel.netlink import NetlinkError
from cni.kernel.nflog import LoggedPacket
from cni.protocol.address import parse_ip

PACKET = LoggedPacket("denied-in", parse_ip("10.1.0.3"), parse_ip("10.1.0.2"), 6, 80)
PATIENCE_SECONDS = 30


class Log:
    """A group of which each attempt to read it ends with an error, or has the packets once and an error then."""

    def __init__(self, *attempts: Exception | list[LoggedPacket]) -> None:
        self.attempts = [*attempts]
        self.is_done = threading.Event()
        self.opened = self.closed = 0

    def __call__(self, group: int) -> Log:
        assert group == 77
        if not self.attempts:
            self.is_done.set()
            raise NetlinkError(EBUSY, "")
        attempt = self.attempts.pop(0)
        if isinstance(attempt, Exception):
            raise attempt
        self.packets = attempt
        self.opened += 1
        self._readable = os.eventfd(1)
        return self

    def fileno(self) -> int:
        return self._readable

    def read(self) -> list[LoggedPacket]:
        if not self.packets:
            raise OSError(EINVAL, "Invalid argument")
        packets, self.packets = self.packets, []
        return packets

    def close(self) -> None:
        self.closed += 1
        os.close(self._readable)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packetlog, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(packetlog, "REST_SECONDS", 0.001)


def run(monkeypatch: pytest.MonkeyPatch, log: Log) -> list[PacketDenied]:
    """Returns the events until all attempts were made."""
    monkeypatch.setattr(packetlog, "PacketLog", log)
    events: list[PacketDenied] = []
    source = DeniedPackets()
    source.start(events.append)
    assert log.is_done.wait(PATIENCE_SECONDS)
    source.close()
    assert source._thread is not None
    assert not source._thread.is_alive()
    return events


def test_packets_become_events(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log([PACKET, PACKET])
    assert run(monkeypatch, log) == [PacketDenied(*PACKET)] * 2
    assert log.opened == log.closed == 1


def test_of_a_flood_a_part_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(run(monkeypatch, Log([PACKET] * 1000))) == packetlog.PACKETS


def test_an_error_is_told_once_until_it_changes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taken, none = NetlinkError(EPERM, ""), NetlinkError(EINVAL, "")
    run(monkeypatch, Log(taken, NetlinkError(EBUSY, ""), none, none, [PACKET], taken))
    texts = [packetlog.TAKEN, "the kernel refused a step: Invalid argument", "Invalid argument", packetlog.TAKEN]
    assert caplog.messages == [f"denied packets are not logged: {text}" for text in texts]


def test_one_that_was_never_started_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packetlog, "PacketLog", lambda _: pytest.fail("nobody reads"))
    DeniedPackets().close()


def test_denied_packets_are_read_when_metrics_are_asked_for() -> None:
    metrics, counts = Metrics(), dict[tuple[str, ...], int]({("ingress",): 7, ("egress",): 0})
    metrics.count_denied(lambda: counts)
    assert b'podwired_policy_denied_packets_total{direction="ingress"} 7.0\n' in metrics.text()
    assert b'podwired_policy_denied_packets_total{direction="egress"} 0.0\n' in metrics.text()
    counts.clear()
    assert b"podwired_policy_denied_packets_total{" not in metrics.text()
    assert b"podwired_policy_rule_packets" not in metrics.text()
    metrics.count_rules(lambda: {("shop/web-only", "ingress", "0"): 3})
    line = b'podwired_policy_rule_packets_total{direction="ingress",policy="shop/web-only",rule="0"} 3.0\n'
    assert line in metrics.text()


def test_what_is_read_of_tracked_connections_and_of_watches_is_a_metric() -> None:
    metrics = Metrics()
    metrics.count_connections(lambda: {(): 7}, dict)
    metrics.note_watches(lambda: {("Namespace",): 5.5})
    lines = metrics.text().decode().splitlines()
    assert "podwired_tracked_connections 7.0" in lines
    assert 'podwired_policy_watch_timestamp_seconds{kind="Namespace"} 5.5' in lines
    assert not [line for line in lines if line.startswith("podwired_tracked_connections_limit ")]
