"""The network's configuration: flannel's defaults and its validation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.agent.model.network import BackendConfig, NetworkConfig, Space, parse_network_config
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.errors import CniError, DecodingFailure, InvalidConfig

VXLAN = {"Type": "vxlan"}
SIX = {"EnableIPv4": False, "EnableIPv6": True, "Backend": VXLAN}


def parsed(config: dict[str, Any]) -> NetworkConfig:
    return parse_network_config(json.dumps(config).encode(), "the network's configuration")


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(InvalidConfig) as error:
        parsed(config)
    return error.value.message


def four(network: str, **keys: Any) -> Space:
    space = parsed({"Network": network, "Backend": VXLAN, **keys}).ipv4
    assert space is not None
    return space


def six(network: str, **keys: Any) -> Space:
    space = parsed({**SIX, "IPv6Network": network, **keys}).ipv6
    assert space is not None
    return space


def test_the_least_configuration_has_flannels_defaults() -> None:
    assert parsed({"Network": "10.5.0.0/16", "Backend": VXLAN}) == NetworkConfig(
        ipv4=Space(parse_net("10.5.0.0/16"), parse_ip("10.5.1.0"), parse_ip("10.5.255.0"), 24),
        ipv6=None,
        backend=BackendConfig("vxlan", vni=1, port=0, mtu=0, gbp=False, learning=False, direct_routing=False),
    )


def test_all_keys_are_read_in_any_case() -> None:
    text = b"""{"ENABLEIPV4": true, "enableipv6": true, "network": "10.5.0.0/16", "ipv6network": "fd00:5::/48",
        "subnetlen": 25, "SUBNETMIN": "10.5.0.128", "subnetMax": "10.5.9.0",
        "ipv6subnetlen": 60, "IPV6SUBNETMIN": "fd00:5:0:10::", "ipv6SubnetMax": "fd00:5:0:fff0::",
        "EnableNFTables": false, "Unknown": [],
        "backend": {"type": "VXLAN", "vni": 4096, "PORT": 4789, "mtu": 1400, "Gbp": true, "LEARNING": true,
                    "directrouting": true}}"""
    assert parse_network_config(text, "it") == NetworkConfig(
        ipv4=Space(parse_net("10.5.0.0/16"), parse_ip("10.5.0.128"), parse_ip("10.5.9.0"), 25),
        ipv6=Space(parse_net("fd00:5::/48"), parse_ip("fd00:5:0:10::"), parse_ip("fd00:5:0:fff0::"), 60),
        backend=BackendConfig("vxlan", vni=4096, port=4789, mtu=1400, gbp=True, learning=True, direct_routing=True),
    )


def test_the_network_is_masked() -> None:
    assert four("10.5.3.4/16").network == parse_net("10.5.0.0/16")
    assert six("fd00:5::77/56").network == parse_net("fd00:5::/56")


@pytest.mark.parametrize(
    ("network", "length", "first", "last"),
    [
        ("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0"),
        ("10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0"),
        ("10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128"),
        ("10.5.0.0/28", 30, "10.5.0.4", "10.5.0.12"),
        ("0.0.0.0/0", 24, "0.0.1.0", "255.255.255.0"),
        ("fd00:5::/48", 64, "fd00:5:0:1::", "fd00:5:0:ffff::"),
        ("fd00:5::/62", 64, "fd00:5:0:1::", "fd00:5:0:3::"),
        ("fd00:5::/63", 65, "fd00:5:0:0:8000::", "fd00:5:0:1:8000::"),
        ("fd00:5::/124", 126, "fd00:5::4", "fd00:5::c"),
    ],
)
def test_the_length_of_subnets_and_their_bounds_follow_from_the_network(
    network: str, length: int, first: str, last: str
) -> None:
    space = six(network) if ":" in network else four(network)
    assert (space.length, space.first.text, space.last.text) == (length, first, last)


def test_a_length_of_zero_is_the_usual_one() -> None:
    assert four("10.5.0.0/16", SubnetLen=0).length == 24
    assert four("10.5.0.0/16", SubnetLen=30).length == 30
    assert six("fd00:5::/48", IPv6SubnetLen=126).length == 126


def test_the_first_subnet_is_used_where_it_is_asked_for() -> None:
    assert four("10.5.0.0/16", SubnetMin="10.5.0.0").first == parse_ip("10.5.0.0")


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"Network": "10.5.0.0/29"}, "Network: 10.5.0.0/29 is too small, the longest prefix is 28"),
        ({"Network": None}, "Network: needs an IPv4 network (as in 10.244.0.0/16)"),
        ({"Network": ""}, "Network: needs an IPv4 network (as in 10.244.0.0/16)"),
        ({"Network": "fd00:5::/56"}, "Network: needs an IPv4 network (as in 10.244.0.0/16)"),
        ({"Network": "10.5.0.0"}, "Network: '10.5.0.0' has no prefix length"),
        ({"Network": 10}, "Network: expected a text"),
        ({"SubnetLen": 31}, "SubnetLen: 31 is not between 0 and 30"),
        ({"SubnetLen": -1}, "SubnetLen: -1 is not between 0 and 30"),
        ({"SubnetLen": "24"}, "SubnetLen: expected an integer"),
        ({"SubnetLen": 17}, "SubnetLen: 10.5.0.0/16 must accommodate at least four subnets of /17"),
        ({"SubnetMin": "10.6.1.0"}, "SubnetMin: 10.6.1.0 is not in 10.5.0.0/16"),
        ({"SubnetMin": "10.5.1.1"}, "SubnetMin: 10.5.1.1 is not the first address of a subnet"),
        ({"SubnetMin": "fd00::"}, "SubnetMin: fd00:: is not in 10.5.0.0/16"),
        ({"SubnetMax": "10.4.1.0"}, "SubnetMax: 10.4.1.0 is not in 10.5.0.0/16"),
        ({"SubnetMax": "10.5.1.128"}, "SubnetMax: 10.5.1.128 is not the first address of a subnet"),
        ({"SubnetMax": "last"}, "SubnetMax: 'last' is not an IP address"),
        (
            {"SubnetMin": "10.5.9.0", "SubnetMax": "10.5.8.0"},
            "SubnetMin: 10.5.9.0 is behind 10.5.8.0, the last subnet",
        ),
        ({"EnableIPv6": True}, "IPv6Network: needs an IPv6 network (as in fd00:244::/56)"),
        ({"EnableIPv6": True, "IPv6Network": "fd00::/125"}, "IPv6Network: fd00::/125 is too small"),
        ({"EnableIPv6": True, "IPv6Network": "fd00::/48", "IPv6SubnetLen": 127}, "IPv6SubnetLen: 127 is not between"),
        ({"EnableIPv4": False}, "EnableIPv4: neither IPv4 nor IPv6 is enabled"),
        ({"EnableIPv4": "yes"}, "EnableIPv4: expected true or false"),
        ({"Backend": {"Type": "vxlan", "VNI": 1 << 24}}, "Backend.VNI: 16777216 is not between 0 and 16777215"),
        ({"Backend": {"Type": "vxlan", "Port": 65536}}, "Backend.Port: 65536 is not between 0 and 65535"),
        ({"Backend": {"Type": "vxlan", "MTU": -1}}, "Backend.MTU: -1 is not between 0 and 65535"),
        ({"Backend": {"Type": "vxlan", "DirectRouting": 1}}, "Backend.DirectRouting: expected true or false"),
        ({"Backend": "vxlan"}, "Backend: expected an object"),
    ],
)
def test_what_is_wrong_is_reported_with_its_path(keys: dict[str, Any], error: str) -> None:
    message = refused({"Network": "10.5.0.0/16", "Backend": VXLAN, **keys})
    assert error in message
    errors = message.removeprefix("invalid network configuration: ").split("; ")
    assert len(errors) == len({*errors})


@pytest.mark.parametrize("backend", [None, {}, {"Type": "udp"}, {"Type": "UDP"}])
def test_the_default_backend_is_flannels_and_refused_with_what_to_say_instead(backend: Any) -> None:
    message = refused({"Network": "10.5.0.0/16", "Backend": backend})
    assert "Backend.Type: 'udp' is not supported, vxlan and host-gw are (without Type it would be udp)" in message


def test_all_faults_are_reported_together() -> None:
    message = refused({"Network": "10.5.0.0/16", "SubnetLen": 17, "EnableIPv6": True, "Backend": {"Type": "ipsec"}})
    assert [word in message for word in ("SubnetLen", "IPv6Network", "'ipsec'")] == [True, True, True]


@pytest.mark.parametrize("text", [b"", b"nonsense", b"[]", b"null", b"\xff\xfe"])
def test_what_is_no_object_is_undecodable(text: bytes) -> None:
    with pytest.raises(DecodingFailure, match="the network's configuration"):
        parse_network_config(text, "the network's configuration")


def test_families_are_reported_in_order() -> None:
    both = parsed({"Network": "10.5.0.0/16", "EnableIPv6": True, "IPv6Network": "fd00:5::/56", "Backend": VXLAN})
    assert both.families == (4, 6)
    assert (both.network(4).text, both.network(6).text) == ("10.5.0.0/16", "fd00:5::/56")
    alone = parsed({**SIX, "Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/56"})
    assert (alone.families, alone.space(4)) == ((6,), None)


def test_a_space_holds_just_the_subnets_that_it_gives_out() -> None:
    space = four("10.5.0.0/16", SubnetMin="10.5.4.0", SubnetMax="10.5.7.0")
    assert [subnet.text for subnet in space.subnets()] == [f"10.5.{number}.0/24" for number in range(4, 8)]
    assert all(space.holds(subnet) for subnet in space.subnets())
    for other in ("10.5.3.0/24", "10.5.8.0/24", "10.5.4.0/25", "10.5.4.0/22", "10.6.4.0/24", "fd00::/24"):
        assert not space.holds(parse_net(other))


def test_no_configuration_whatever_is_a_defect() -> None:
    values: list[Any] = [None, True, 0, -1, 1 << 70, 1.5, "", "x", "10.5.0.0/16", "fd00::/56", [], {}, [{}], VXLAN]
    keys = ["Network", "IPv6Network", "SubnetLen", "SubnetMin", "SubnetMax", "IPv6SubnetLen", "EnableIPv4", "Backend"]
    for key in keys:
        for value in values:
            for base in ({"Network": "10.5.0.0/16", "Backend": VXLAN}, {**SIX, "IPv6Network": "fd00:5::/56"}):
                try:
                    parsed({**base, key: value})
                except CniError as error:
                    assert error.message  # noqa: PT017  # either is right
