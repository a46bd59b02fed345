"""Tests the pinned interface on a model of the host, with a clock that the tests move."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cni.agent.model.network import parse_network_config
from cni.agent.uplink.pinned import GRACE_SECONDS, PinnedUnderlay
from cni.agent.uplink.select import InterfaceSelector, NoUnderlay, Underlay
from cni.kernel.rtnl import IFA_F_DADFAILED, IFA_F_NOPREFIXROUTE, IFA_F_PERMANENT, IFA_F_TEMPORARY, IFF_UP
from cni.kernel.rtnl_parse import AddressInfo, Link, RouteInfo
from cni.protocol.address import IP, parse_ip, parse_net

OWN, OWN6, VIP, VIP6 = "192.0.2.11/24", "2001:db8::11/64", "192.0.2.100/32", "2001:db8::100/128"
OTHER = "198.51.100.11/24"


class Host:
    """Links, their addresses and the default routes, as the socket of a host tells them."""

    def __init__(self) -> None:
        self.links_by_name: dict[str, Link] = {}
        self.infos: list[AddressInfo] = []
        self.gateways: list[tuple[str, str]] = [("eth0", "")]
        self.made = 0

    def plug(self, name: str, *addresses: str) -> None:
        self.made += 1
        self.links_by_name[name] = Link(
            ifindex=self.made, name=name, kind="", mac=b"", mtu=1500, flags=IFF_UP, master=0, peer=0, operstate=6,
            group=0, alias="", vlan_filtering=False, hairpin=False, isolated=False, txqlen=0,
        )  # fmt: skip
        for address in addresses:
            self.add(name, address)

    def unplug(self, name: str) -> None:
        index = self.links_by_name.pop(name).ifindex
        self.infos = [info for info in self.infos if info.ifindex != index]

    def change(self, link: str, **fields: Any) -> None:
        changed = self.links_by_name.pop(link)._replace(**fields)
        self.links_by_name[changed.name] = changed

    def add(self, name: str, address: str, flags: int = IFA_F_PERMANENT) -> None:
        self.infos.append(AddressInfo(self.links_by_name[name].ifindex, parse_net(address), flags))

    def remove(self, *addresses: str) -> None:
        self.infos = [info for info in self.infos if info.address.text not in addresses]

    def find(self, name: str) -> Link | None:
        return self.links_by_name.get(name)

    def links(self) -> list[Link]:
        return [*self.links_by_name.values()]

    def all_addresses(self) -> list[AddressInfo]:
        return self.infos

    def defaults(self, family: int) -> list[RouteInfo]:
        any_net = parse_net("0.0.0.0/0" if family == 4 else "::/0")
        return [
            RouteInfo(any_net, None, self.links_by_name[name].ifindex, 0, 254, 0, 0, 0, parse_ip(ip) if ip else None)
            for name, ip in self.gateways
            if name in self.links_by_name
        ]


class Held:
    """A wire that is asked for at moments of the tests' clock."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch, *, dual: bool = False, **selector: Any) -> None:
        self.host, self.now = host, 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        families = b'"EnableIPv6": true, "IPv6Network": "fd00::/48",' if dual else b""
        self.config = parse_network_config(
            b'{"Network": "10.5.0.0/16", %s "Backend": {"Type": "vxlan"}}' % families, "the test"
        )
        self.wire = PinnedUnderlay(host, InterfaceSelector(**selector))  # type: ignore[arg-type]  # a Host has what it uses of a socket
        self.public_ips: tuple[IP, ...] = ()

    def find(self, after: float = 0.0) -> Underlay:
        self.now += after
        return self.wire.current(self.config, self.public_ips)

    def ips(self, after: float = 0.0) -> str:
        underlay = self.find(after)
        return " ".join([underlay.name, *[net.ip.text for net in underlay.addresses]])


@pytest.fixture
def host() -> Host:
    host = Host()
    host.plug("eth0", OWN)
    return host


def test_an_address_that_is_away_for_a_moment_is_kept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(host, monkeypatch)
    assert held.ips() == "eth0 192.0.2.11"
    host.add("eth0", VIP)
    assert held.ips() == "eth0 192.0.2.11"
    host.remove(OWN)
    for _ in range(3):
        assert held.ips(3.0) == "eth0 192.0.2.11"
        assert held.wire.error == "eth0 has lost 192.0.2.11: waited for, for 10 s"
        assert held.wire.searches
    host.add("eth0", OWN)
    assert held.ips(30.0) == "eth0 192.0.2.11"
    assert (held.wire.error, held.wire.searches) == ("", False)
    host.remove(OWN)  # it counts from zero
    assert held.ips(9.0) == "eth0 192.0.2.11"


def test_a_node_returns_to_the_address_that_came_back_late(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(host, monkeypatch)
    held.find()
    host.add("eth0", VIP)
    held.find()
    host.remove(OWN)
    held.find()
    assert held.ips(GRACE_SECONDS) == "eth0 192.0.2.100"
    assert held.wire.searches
    assert held.ips(100.0) == "eth0 192.0.2.100"
    host.add("eth0", OWN)
    assert held.ips() == "eth0 192.0.2.11"
    assert not held.wire.searches


def test_a_new_address_of_the_interface_is_taken_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(host, monkeypatch)
    held.find()
    host.remove(OWN)
    host.add("eth0", VIP)  # which looks like a virtual one
    assert held.ips(1.0) == "eth0 192.0.2.11"
    host.add("eth0", "192.0.2.50/24")
    assert held.ips() == "eth0 192.0.2.50"


def test_addresses_that_move_to_another_interface_are_followed_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an interface becomes a port of a bridge."""
    held = Held(host, monkeypatch)
    held.find()
    host.plug("br0")
    host.remove(OWN)
    host.gateways = [("br0", "")]
    assert held.ips() == "eth0 192.0.2.11"
    host.add("br0", OWN)
    assert held.ips() == "br0 192.0.2.11"
    assert not held.wire.searches


def test_addresses_that_move_are_followed_before_the_default_route_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The route of a router's advertisement stays at a port of a bridge until its time is over."""
    translated = parse_ip("203.0.113.7")
    wishes: list[dict[str, Any]] = [{}, {"public_ips": (translated,), "names": ("eth0",)}]
    for selector, moves in zip(wishes, (True, False), strict=True):
        host = Host()
        host.plug("eth0", OWN)
        host.plug("br0")
        host.gateways = [("eth0", "")]
        held = Held(host, monkeypatch, **selector)
        before = held.find()
        host.remove(OWN)
        host.add("br0", OWN)
        assert held.ips() == ("br0 192.0.2.11" if moves else "eth0 192.0.2.11")
        assert held.find().public_ips == before.public_ips
        assert bool(held.wire.error) != moves


def test_an_interface_that_was_named_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.plug("eth1", OTHER)
    held = Held(host, monkeypatch, names=("eth0",))
    held.find()
    host.unplug("eth0")
    for _ in range(2):
        with pytest.raises(NoUnderlay, match=r"there is no interface eth0 \(--iface eth0\)"):
            held.find(20.0)
    host.plug("eth0", OWN)
    underlay = held.find()
    assert (underlay.ifindex, underlay.addresses) == (3, (parse_net(OWN),))


@pytest.mark.parametrize("named", [{}, {"patterns": ("eth",)}])
def test_an_interface_that_is_made_anew_is_returned_to(
    host: Host, monkeypatch: pytest.MonkeyPatch, named: dict[str, Any]
) -> None:
    host.plug("eth1", OTHER)
    host.gateways = [("eth0", ""), ("eth1", "")]
    held = Held(host, monkeypatch, **named)
    held.find()
    host.unplug("eth0")
    with pytest.raises(NoUnderlay, match="eth0 is gone: waited for, for 10 s"):
        held.find()
    assert held.ips(GRACE_SECONDS) == "eth1 198.51.100.11"
    host.plug("eth0")
    assert held.ips() == "eth1 198.51.100.11"
    host.add("eth0", OWN)
    assert held.ips() == "eth0 192.0.2.11"
    assert held.find().ifindex == 3


def test_a_new_name_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(host, monkeypatch, names=("eth0",))
    before = held.find()
    host.change("eth0", name="lan0", mtu=1400)
    assert held.find() == before._replace(name="lan0", mtu=1400)
    assert held.find() == before._replace(name="lan0", mtu=1400)
    assert held.wire.error == ""


def test_an_interface_that_is_down_is_a_fault_and_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.plug("eth1", OTHER)
    held = Held(host, monkeypatch)
    held.find()
    host.gateways = [("eth1", "")]
    assert held.ips(100.0) == "eth0 192.0.2.11"  # a default route that moves does not move the node
    host.change("eth0", flags=0)
    assert held.ips() == "eth0 192.0.2.11"
    assert held.wire.error == "eth0 is down: other nodes are not reached"
    host.change("eth0", flags=IFF_UP)
    held.find()
    assert held.wire.error == ""


def test_another_prefix_length_is_the_same_address(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(host, monkeypatch)
    held.find()
    host.remove(OWN)
    host.add("eth0", "192.0.2.11/16")
    held.find()
    assert held.wire.error == ""


def test_of_two_families_one_that_is_lost_is_waited_for(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.add("eth0", OWN6)
    held = Held(host, monkeypatch, dual=True)
    assert held.ips() == "eth0 192.0.2.11 2001:db8::11"
    host.remove(OWN6)
    host.add("eth0", VIP6)
    assert held.ips(9.0) == "eth0 192.0.2.11 2001:db8::11"
    host.add("eth0", OWN6, IFA_F_PERMANENT | IFA_F_DADFAILED)  # somebody else has it
    assert held.ips(GRACE_SECONDS) == "eth0 192.0.2.11 2001:db8::100"
    host.remove(OWN6)
    host.add("eth0", OWN6)
    assert held.ips() == "eth0 192.0.2.11 2001:db8::11"


def test_a_virtual_address_is_left_for_an_own_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent was started before the node had its address."""
    host.remove(OWN)
    host.add("eth0", VIP)
    held = Held(host, monkeypatch)
    assert held.ips() == "eth0 192.0.2.100"
    assert held.wire.error == ""
    host.add("eth0", OWN, 0)
    assert held.ips() == "eth0 192.0.2.11"


def test_an_address_that_was_asked_for_is_no_makeshift(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.add("eth0", VIP)
    wishes: list[dict[str, Any]] = [{"public_ips": (parse_ip("192.0.2.100"),)}, {"names": ("192.0.2.100",)}]
    for selector in wishes:
        held = Held(host, monkeypatch, **selector)
        assert held.ips() == "eth0 192.0.2.100"
        assert held.ips() == "eth0 192.0.2.100"
    held = Held(host, monkeypatch)
    held.public_ips = (parse_ip("192.0.2.100"),)
    assert held.ips() == "eth0 192.0.2.100"
    held.public_ips = ()
    assert held.ips() == "eth0 192.0.2.11"


DYNAMIC, SECOND = 0, IFA_F_PERMANENT | IFA_F_TEMPORARY
STATIC = IFA_F_PERMANENT
FREE = IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE


@pytest.mark.parametrize(
    ("addresses", "source"),
    [
        ([("192.0.2.100/32", STATIC), ("192.0.2.11/24", DYNAMIC)], ""),
        ([("192.0.2.100/32", STATIC), ("192.0.2.11/24", STATIC)], ""),
        ([("192.0.2.100/32", STATIC), ("192.0.2.11/32", DYNAMIC)], ""),  # as cloud providers give them
        ([("192.0.2.100/32", STATIC), ("192.0.2.11/32", STATIC)], "192.0.2.11"),
        ([("192.0.2.100/24", STATIC), ("192.0.2.11/24", IFA_F_TEMPORARY)], ""),  # the lease was renewed late
        ([("192.0.2.100/24", STATIC), ("192.0.2.11/24", SECOND)], "192.0.2.11"),
        ([("192.0.2.11/24", DYNAMIC), ("192.0.2.100/24", SECOND)], ""),
        ([("192.0.2.11/24", FREE), ("192.0.2.100/24", SECOND)], ""),  # NetworkManager's, beside keepalived's
        ([("192.0.2.100/24", FREE), ("192.0.2.11/24", STATIC)], ""),
        ([("192.0.2.100/24", FREE), ("192.0.2.11/24", FREE)], "192.0.2.11"),
        ([("198.51.100.7/24", STATIC), ("192.0.2.11/24", STATIC)], "192.0.2.11"),
    ],
)
def test_an_own_address_comes_before_virtual_ones(
    monkeypatch: pytest.MonkeyPatch, addresses: list[tuple[str, int]], source: str
) -> None:
    host = Host()
    host.plug("eth0")
    for address, flags in addresses:
        host.add("eth0", address, flags)
    host.gateways = [("eth0", source)]
    wishes: list[dict[str, Any]] = [{}, {"names": ("eth0",)}, {"patterns": ("^eth",)}]
    for selector in wishes:
        assert Held(host, monkeypatch, **selector).ips() == "eth0 192.0.2.11"
