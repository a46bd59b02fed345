"""The use of a node's addresses, as files of host-local show it, and the metrics of the node's state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni import VERSION
from cni.agent.controllers.status import StatusBoard
from cni.agent.metrics import Metrics
from cni.agent.node import addresses, connections
from cni.agent.node.addresses import AddressUse, LeasedAddresses
from cni.agent.runtime.health import Health
from cni.kernel import sysctl
from cni.protocol.address import parse_net
from tests.unit.test_agent_status import snapshot

if TYPE_CHECKING:
    from pathlib import Path

SUBNETS = parse_net("10.5.1.0/24"), parse_net("fd00:5::/64")
OLD = 1_000_000_000  # seconds


def put(folder: Path, *names: str, at: int = OLD) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    os.utime(folder, (at, at))


def test_leases_of_all_networks_count_if_their_address_is_the_nodes(tmp_path: Path) -> None:
    put(tmp_path / "cbr0", "10.5.1.2", "10.5.1.254", "fd00:5::2", "10.5.2.2", "lock", "last_reserved_ip.0", ".10.5.1.9")
    put(tmp_path / "other", "10.5.1.3", "192.0.2.1")
    (tmp_path / "10.5.1.77").touch()
    assert LeasedAddresses(str(tmp_path)).count(SUBNETS) == [
        AddressUse(4, 253, 3), AddressUse(6, (1 << 64) - 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("subnet", "inside", "outside"),
    [
        ("10.5.1.0/24", "10.5.1.7", "10.5.11.7"),
        ("10.5.0.0/21", "10.5.7.7", "10.5.8.1"),
        ("10.0.0.0/8", "10.5.7.7", "110.5.8.1"),
        ("8.0.0.0/7", "9.5.7.7", "10.5.8.1"),
    ],
)
def test_addresses_are_those_of_the_subnet_whatever_its_length(
    tmp_path: Path, subnet: str, inside: str, outside: str
) -> None:
    put(tmp_path / "cbr0", inside, outside)
    [use] = LeasedAddresses(str(tmp_path)).count([parse_net(subnet)])
    assert use.used == 1


def test_addresses_of_a_large_network_of_another_kind_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "other", "192.0.2.1", "lock")
    monkeypatch.setattr(addresses, "parse_ip", pytest.fail)
    assert LeasedAddresses(str(tmp_path)).count(SUBNETS)[0].used == 0


def test_a_folder_that_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "cbr0", "10.5.1.2")
    leased = LeasedAddresses(str(tmp_path))
    read: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: [read.append(path), listdir(path)][1])  # type: ignore[func-returns-value]

    def used() -> int:
        return leased.count(SUBNETS)[0].used

    assert (used(), used()) == (1, 1)
    assert read.count(str(tmp_path / "cbr0")) == 1
    put(tmp_path / "cbr0", "10.5.1.3", at=OLD + 1)
    assert used() == 2
    assert leased.count((parse_net("10.9.0.0/24"),)) == [AddressUse(4, 253, 0)]


def test_a_folder_that_has_just_changed_is_read_again_though_its_time_is_the_same(tmp_path: Path) -> None:
    now = int(os.stat(tmp_path).st_mtime) + 100
    put(tmp_path / "cbr0", "10.5.1.2", at=now)
    leased = LeasedAddresses(str(tmp_path))
    assert leased.count(SUBNETS)[0].used == 1
    put(tmp_path / "cbr0", "10.5.1.3", at=now)
    assert leased.count(SUBNETS)[0].used == 2


def test_without_the_folder_there_is_no_number(tmp_path: Path) -> None:
    assert LeasedAddresses(str(tmp_path / "none")).count(SUBNETS) == []


def test_the_table_of_connections_is_read_and_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, str | None] = {connections.ENTRIES: "12", connections.LIMIT: None}
    monkeypatch.setattr(sysctl, "read", values.__getitem__)
    assert (connections.entries(), connections.limit()) == ({(): 12}, {})


def test_the_metrics_have_the_version_the_peers_by_state_and_the_use_of_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "cbr0", "10.5.1.2")
    metrics = Metrics()
    board = StatusBoard("node1", "etcd", Health(metrics))
    monkeypatch.setattr(board, "_leased", LeasedAddresses(str(tmp_path)))
    metrics.count_node(board.peers_by_state, board.address_use)
    assert 'podwired_peers_by_state{state="vxlan"} 0.0' in metrics.text().decode()
    assert "podwired_pool_addresses{" not in metrics.text().decode()
    board.snapshot = snapshot()
    lines = metrics.text().decode().splitlines()
    for line in (
        f'podwired_build_info{{version="{VERSION}"}} 1.0',
        'podwired_peers_by_state{state="vxlan"} 1.0',
        'podwired_peers_by_state{state="unreachable"} 1.0',
        'podwired_pool_addresses{family="IPv4"} 253.0',
        'podwired_pool_addresses_used{family="IPv4"} 1.0',
    ):
        assert line in lines
