"""Allocation of subnets, compared with a plain walk through all of them."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from cni.agent.model.lease import Node, NodeAddress
from cni.agent.model.network import NetworkConfig, parse_network_config
from cni.agent.stores.etcd.allocation import CHOICE, NoSubnet, choose, fits, free
from cni.protocol.address import Net, parse_ip, parse_net

SMALL = '{"Network": "10.5.0.0/24", "SubnetLen": 28, "Backend": {"Type": "host-gw"}}'
DUAL = """
{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/32", "Backend": {"Type": "host-gw"}}
"""


def network(text: str) -> NetworkConfig:
    return parse_network_config(text.encode(), "the network")


def node(*public_ips: str) -> Node:
    return Node("host-gw", 0, tuple([NodeAddress(parse_ip(ip)) for ip in public_ips]))


def overlap(net: Net, other: Net) -> bool:
    return net.contains(other.ip) or other.contains(net.ip)


@pytest.mark.parametrize("seed", range(40))
def test_free_is_what_overlaps_nothing(seed: int) -> None:
    """The leases are networks of all lengths, in and around the space, some in others."""
    random = Random(seed)
    space = network(SMALL).ipv4
    assert space is not None
    base = parse_ip("10.4.255.0").value
    leased = []
    for _ in range(random.randrange(6)):
        address = parse_ip("0.0.0.0")._replace(value=base + random.randrange(768))
        leased.append(Net(address, random.choice([0, 20, 24, 25, 27, 28, 29, 32])).network)
    leased = [net for net in leased if net.prefix or not seed % 5]
    expected = [net for net in space.subnets() if not any(overlap(net, other) for other in leased)]
    assert list(free(space, leased)) == expected


def test_a_space_without_end_is_not_walked_through() -> None:
    space = network(DUAL).ipv6
    assert space is not None
    subnets = list(islice(free(space, [parse_net("fd00:5:0:2::/63")]), 3))
    assert [subnet.text for subnet in subnets] == ["fd00:5:0:1::/64", "fd00:5:0:4::/64", "fd00:5:0:5::/64"]


def test_the_address_chooses_among_the_first_that_are_free() -> None:
    config = network(DUAL)
    space = config.ipv4
    assert space is not None
    first = list(islice(space.subnets(), CHOICE))
    chosen = [choose(config, node(f"192.0.2.{number}", "2001:db8::1"), [], []) for number in range(1, 101)]
    assert chosen == [choose(config, node(f"192.0.2.{number}", "2001:db8::1"), [], []) for number in range(1, 101)]
    assert {ipv4 for ipv4, _ in chosen} <= set(first)
    assert len({ipv4 for ipv4, _ in chosen}) > CHOICE // 2
    assert len({ipv6 for _, ipv6 in chosen}) == 1


def test_a_preferred_subnet_is_chosen_where_it_fits_and_is_free() -> None:
    config = network(DUAL)
    preferred = [parse_net(text) for text in ("10.9.0.1/24", "10.5.8.1/24", "10.5.9.1/24", "fd00:5:0:8::1/64")]
    leased = [parse_net("10.5.8.128/25"), parse_net("fd00:5:0:9::/64")]
    chosen = choose(config, node("192.0.2.1", "2001:db8::1"), leased, preferred)
    assert chosen == (parse_net("10.5.9.0/24"), parse_net("fd00:5:0:8::/64"))


def test_each_family_keeps_clear_of_all_leases() -> None:
    """Leases of one family do not matter for the other."""
    config = network(DUAL)
    own = node("192.0.2.1", "2001:db8::1")
    usual = choose(config, own, [], [])
    ipv4, ipv6 = choose(config, own, usual[:1], [])
    assert ipv4 != usual[0]
    assert ipv6 == usual[1]


def test_a_full_network_is_named() -> None:
    with pytest.raises(NoSubnet, match=r"no subnet of /28 is free in 10\.5\.0\.0/24"):
        choose(network(SMALL), node("192.0.2.1"), [parse_net("10.0.0.0/8")], [parse_net("10.5.0.16/28")])


@pytest.mark.parametrize(
    ("subnets", "fit"),
    [
        (["10.5.1.0/24", "fd00:5:0:1::/64"], True),
        (["10.5.1.0/24"], False),
        (["10.5.0.0/24", "fd00:5:0:1::/64"], False),
        (["10.5.1.0/25", "fd00:5:0:1::/64"], False),
        (["10.5.1.0/24", "fd00:6:0:1::/64"], False),
        (["fd00:5:0:1::/64", "10.5.1.0/24"], False),
        ([], False),
    ],
)
def test_subnets_fit_that_could_be_given_out_today(subnets: list[str], fit: bool) -> None:
    assert fits(network(DUAL), tuple([parse_net(subnet) for subnet in subnets])) is fit
