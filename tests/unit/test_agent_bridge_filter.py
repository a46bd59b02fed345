"""Packets between pods on one bridge: the setting by which policies see them, where such pods are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.dataplane import bridge_filter, port_isolation
from cni.kernel import sysctl
from cni.kernel.rtnl_parse import AddressInfo
from cni.protocol.address import parse_ip, parse_net

if TYPE_CHECKING:
    from cni.agent.dataplane.port_isolation import Segment
    from cni.effects.host import Host

IPTABLES, IP6TABLES = "net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"


class Link:
    def __init__(self, ifindex: int, name: str, kind: str, peer: int = 0) -> None:
        self.ifindex, self.name, self.kind, self.peer = ifindex, name, kind, peer


class Kernel:
    """A bridge cni0 with pods of both families, another one, and a link that is none; and settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings: dict[str, str] = {IPTABLES: "0", IP6TABLES: "0"}
        self.dumps = 0
        self.isolated: list[str] | None = None
        self.rtnl = self
        self.is_writable = True
        monkeypatch.setattr(port_isolation, "is_possible", lambda: self.is_writable)
        monkeypatch.setattr(port_isolation, "begin", self._begin)
        monkeypatch.setattr(port_isolation, "apply", self._apply)
        monkeypatch.setattr(port_isolation, "end", self._end)
        monkeypatch.setattr(sysctl, "read", self.settings.get)
        monkeypatch.setattr(sysctl, "write", self.settings.__setitem__)

    def _begin(self, *_: object) -> None:
        self.isolated = []

    def _apply(self, _host: object, segments: list[Segment], _pods: object) -> str:
        self.isolated = [f"{segment.interface} of {segment.bridge}: {segment.network.text}" for segment in segments]
        return "a port of others"

    def _end(self, *_: object) -> None:
        self.isolated = None

    def links(self) -> list[Link]:
        self.dumps += 1
        vlan = Link(4, "cni0.5", "vlan", 1)
        return [Link(1, "cni0", "bridge"), Link(2, "docker0", "bridge"), Link(3, "veth0", "veth"), vlan]

    def all_addresses(self) -> list[AddressInfo]:
        places = [(1, "10.1.0.1/24"), (1, "fd00:1::1/64"), (2, "172.17.0.1/16"), (3, "10.2.0.1/24"), (4, "10.5.0.1/24")]
        return [AddressInfo(index, parse_net(net), 0) for index, net in places]

    def ensure(self, *pods: str) -> str:
        return bridge_filter.ensure(cast("Host", cast("Any", self)), [parse_ip(pod) for pod in pods])


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_it_is_set_for_the_families_of_pods_on_a_bridge(host: Kernel) -> None:
    assert host.ensure("10.1.0.2", "fd00:2::2") == ""
    assert host.settings == {IPTABLES: "1", IP6TABLES: "0"}
    assert host.ensure("10.1.0.2", "fd00:1::2") == ""
    assert host.settings == {IPTABLES: "1", IP6TABLES: "1"}
    dumps = host.dumps
    assert host.ensure("10.1.0.2", "fd00:1::2") == ""
    assert host.dumps == dumps


def test_pods_without_a_bridge_change_nothing(host: Kernel) -> None:
    assert host.ensure("10.2.0.2", "10.3.0.2") == ""
    assert host.settings == {IPTABLES: "0", IP6TABLES: "0"}


def test_a_kernel_without_the_setting_is_reported_by_the_bridge_and_the_module(host: Kernel) -> None:
    host.settings.clear()
    host.is_writable = False
    error = host.ensure("10.1.0.2")
    assert error.startswith("bridge cni0: NetworkPolicy cannot be enforced between pods of this node")
    assert error.endswith("(load the module br_netfilter), and /proc/sys is read-only")
    assert host.ensure("10.2.0.2") == ""


def test_without_the_setting_ports_are_isolated_until_it_is_there(host: Kernel) -> None:
    """Already without pods: the first ones may come together."""
    host.settings.clear()
    assert host.ensure() == "a port of others"
    assert host.isolated == []
    host.ensure("10.1.0.2", "10.2.0.2", "fd00:1::2", "10.5.0.2")
    segments = ["cni0 of cni0: 10.1.0.0/24", "cni0 of cni0: fd00:1::/64", "cni0.5 of cni0: 10.5.0.0/24"]
    assert host.isolated == segments
    host.settings |= {IPTABLES: "0", IP6TABLES: "0"}
    assert host.ensure("10.1.0.2") == ""
    assert host.isolated is None
    assert host.settings == {IPTABLES: "1", IP6TABLES: "0"}


def test_pods_in_a_vlan_are_on_its_bridge(host: Kernel) -> None:
    assert host.ensure("10.5.0.2") == ""
    assert host.settings == {IPTABLES: "1", IP6TABLES: "0"}
