"""The backends of a network: what each needs of its node, and what it gives to pods."""

from __future__ import annotations

from typing import Any

import pytest

from cni.agent.backends import BACKENDS, backend_of
from cni.agent.dataplane.devices import LinkState
from cni.agent.model.lease import Endpoint, node_of
from cni.agent.model.leaseformat import derived_mac, lease_format
from cni.agent.model.network import BACKENDS as CONFIGURABLE
from cni.agent.model.network import BackendConfig
from cni.agent.uplink.select import Underlay
from cni.protocol.address import parse_ip, parse_mac, parse_net
from cni.protocol.errors import InvalidConfig
from cni.protocol.fields import ConfigErrors, Fields

MAC, IP4 = parse_mac("0a:00:00:00:00:01"), parse_ip("192.0.2.1")
OWN = Endpoint(parse_net("10.5.1.0/24"), IP4, MAC)
OWN6 = Endpoint(parse_net("fd00:5:0:1::/64"), parse_ip("2001:db8::1"), MAC)


def config(kind: str, mtu: int = 0, *, direct: bool = False) -> BackendConfig:
    return BackendConfig(kind, vni=7, port=0, mtu=mtu, gbp=False, learning=False, direct_routing=direct)


def underlay(mtu: int = 1500) -> Underlay:
    addresses = parse_net("192.0.2.1/24"), parse_net("2001:db8::1/64")
    return Underlay(3, "eth0", mtu, addresses, tuple([net.ip for net in addresses]), "")


def test_every_backend_that_a_network_may_name_is_there() -> None:
    assert {*BACKENDS} == {*CONFIGURABLE}


@pytest.mark.parametrize(
    ("kind", "mtu", "family", "expected"),
    [
        ("vxlan", 0, 4, 1450),
        ("vxlan", 0, 6, 1430),
        ("vxlan", 1400, 4, 1350),
        ("vxlan", 9000, 4, 1450),
        ("host-gw", 0, 4, 1500),
        ("host-gw", 1400, 6, 1400),
    ],
)
def test_pods_have_the_mtu_of_the_underlay_less_the_overhead(kind: str, mtu: int, family: int, expected: int) -> None:
    assert backend_of(config(kind, mtu)).mtu(underlay(), family) == expected


@pytest.mark.parametrize(("kind", "mtu"), [("vxlan", 1349), ("host-gw", 1279)])
def test_an_mtu_that_ipv6_cannot_have_is_an_error(kind: str, mtu: int) -> None:
    with pytest.raises(InvalidConfig, match=rf"an MTU of {mtu} leaves 1279 bytes for pods, IPv6 needs 1280"):
        backend_of(config(kind)).mtu(underlay(mtu), 6)
    assert backend_of(config(kind)).mtu(underlay(mtu + 1), 6) == 1280


def test_vxlan_has_a_device_for_each_family_on_the_underlay() -> None:
    backend = backend_of(config("vxlan"))
    for own, name, address in ((OWN, "flannel.7", "10.5.1.0/32"), (OWN6, "flannel-v6.7", "fd00:5:0:1::/128")):
        device = backend.device(underlay(), own, "podwired", offloads=True)
        assert device is not None
        assert device.name == name == backend.device_name(own.subnet.family)
        assert device == backend.device(underlay(), own, "podwired", offloads=True)
        assert device != backend.device(underlay(1400), own, "podwired", offloads=True)
        assert getattr(device, "address", None) == parse_net(address)


@pytest.mark.parametrize(
    "later",
    [{"mtu": 1400}, {"mac": parse_mac("0a:00:00:00:00:ff")}, {"up": False}, {"master": 9}, {"addresses": ()}],
    ids=lambda later: next(iter(later)),
)
def test_a_change_right_after_the_device_was_ensured_is_news(later: dict[str, Any]) -> None:
    """The state that notifications are compared with is read after that change."""
    device = backend_of(config("vxlan")).device(underlay(), OWN, "podwired", offloads=True)
    assert device is not None
    ensured = LinkState("flannel.7", MAC, 1450, True, 0, None, (parse_net("10.5.1.0/32"),))
    assert device.as_ensured(ensured._replace(**later)) == ensured


def test_host_gw_has_no_device_and_needs_the_underlay_s_own_address() -> None:
    backend = backend_of(config("host-gw"))
    assert backend.device(underlay(), OWN, "podwired", offloads=True) is None
    assert (backend.device_name(4), backend.vni, backend.needs_own_address) == ("", None, True)
    assert not backend_of(config("vxlan")).needs_own_address


@pytest.mark.parametrize(
    ("kind", "direct", "expected"), [("vxlan", False, False), ("vxlan", True, True), ("host-gw", False, True)]
)
def test_vxlan_routes_directly_only_when_asked_to(kind: str, direct: bool, expected: bool) -> None:
    assert backend_of(config(kind, direct=direct)).routes_directly == expected


def test_a_node_presents_a_vtep_with_vxlan_alone() -> None:
    assert node_of(config("vxlan"), [IP4]).addresses[0].vtep_mac == derived_mac(IP4, 7)
    node = node_of(config("host-gw"), [IP4])
    assert (node.vni, node.addresses[0].vtep_mac) == (0, None)


@pytest.mark.parametrize("kind", ["vxlan", "host-gw", "wireguard"])
def test_lease_data_is_read_as_it_is_written(kind: str) -> None:
    parts, errors = lease_format(kind), ConfigErrors()
    mac = parts.vtep_mac(IP4, 7)
    fields = Fields({"BackendData": parts.render(mac, 7)}, "", errors)
    assert parts.parse(fields, "BackendData") == (mac, parts.vni(config(kind)))
    assert errors.messages == []


def test_only_vxlan_leases_conflict_by_their_vni() -> None:
    assert lease_format("vxlan").conflict(8, config("vxlan")) == "its VNI is 8, not 7"
    assert lease_format("vxlan").conflict(7, config("vxlan")) == ""
    assert lease_format("host-gw").conflict(8, config("host-gw")) == ""
