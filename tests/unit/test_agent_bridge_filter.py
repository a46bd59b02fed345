"""Packets between pods on one bridge: the setting by which policies see them, where such pods are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.dataplane import bridge_filter
from cni.kernel import sysctl
from cni.kernel.rtnl_parse import AddressInfo
from cni.protocol.address import parse_ip, parse_net

if TYPE_CHECKING:
    from cni.kernel.rtnl_socket import RtnlSocket

IPTABLES, IP6TABLES = "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"


class Link:
    def __init__(self, ifindex: int, name: str, kind: str) -> None:
        self.ifindex, self.name, self.kind = ifindex, name, kind


class Host:
    """A bridge cni0 with pods of both families, another one, and a link that is none; and settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings: dict[str, str] = {IPTABLES: "0", IP6TABLES: "0"}
        self.dumps = 0
        monkeypatch.setattr(sysctl, "read", self.settings.get)
        monkeypatch.setattr(sysctl, "write", self.settings.__setitem__)

    def links(self) -> list[Link]:
        self.dumps += 1
        return [Link(1, "cni0", "bridge"), Link(2, "docker0", "bridge"), Link(3, "veth0", "veth")]

    def all_addresses(self) -> list[AddressInfo]:
        places = [(1, "10.1.0.1/24"), (1, "fd00:1::1/64"), (2, "172.17.0.1/16"), (3, "10.2.0.1/24")]
        return [AddressInfo(index, parse_net(net), 0) for index, net in places]

    def ensure(self, *pods: str) -> str:
        return bridge_filter.ensure(cast("RtnlSocket", cast("Any", self)), [parse_ip(pod) for pod in pods])


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_it_is_set_for_the_families_of_pods_on_a_bridge(host: Host) -> None:
    assert host.ensure("10.1.0.2", "fd00:2::2") == ""
    assert host.settings == {IPTABLES: "1", IP6TABLES: "0"}
    assert host.ensure("10.1.0.2", "fd00:1::2") == ""
    assert host.settings == {IPTABLES: "1", IP6TABLES: "1"}
    dumps = host.dumps
    assert host.ensure("10.1.0.2", "fd00:1::2") == ""
    assert host.dumps == dumps


def test_pods_without_a_bridge_change_nothing(host: Host) -> None:
    assert host.ensure("10.2.0.2", "10.3.0.2") == ""
    assert host.settings == {IPTABLES: "0", IP6TABLES: "0"}


def test_a_kernel_without_the_setting_is_reported_by_the_bridge_and_the_module(host: Host) -> None:
    host.settings.clear()
    error = host.ensure("10.1.0.2")
    assert error.startswith("bridge cni0: NetworkPolicy cannot be enforced between pods of this node")
    assert error.endswith("no sysctl net.bridge.bridge-nf-call-iptables (load the module br_netfilter)")
    assert host.ensure("10.2.0.2") == ""
