"""Tests which leases of other nodes are applied, against a reference that compares each with each."""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.model.lease import Endpoint, Lease
from cni.agent.model.leaseformat import derived_mac
from cni.agent.model.network import parse_network_config
from cni.agent.model.peers import Peers
from cni.protocol.address import IP, Net, mac_text, parse_ip, parse_mac, parse_net
from tests.unit.strategies import seeds

if TYPE_CHECKING:
    from cni.agent.model.network import NetworkConfig

SINGLE = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}', "single")
DUAL = parse_network_config(
    b'{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/56", "Backend": {"Type": "vxlan"}}',
    "dual",
)
HOST_GW = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}', "host-gw")


def lease(subnet: str, ip: str, mac: str = "", *, backend: str = "vxlan", vni: int = 1) -> Lease:
    """Returns a lease; `mac` is the last byte of its MAC address."""
    return Lease((endpoint(subnet, ip, mac),), backend, vni)


def endpoint(subnet: str, ip: str, mac: str = "") -> Endpoint:
    return Endpoint(parse_net(subnet), parse_ip(ip), mac_of(mac) if mac else None)


def mac_of(last: str) -> bytes:
    return parse_mac(f"0a:00:00:00:00:{last}")


OWN = lease("10.5.1.0/24", "192.0.2.1", "01")
TWO = lease("10.5.2.0/24", "192.0.2.2", "02")
THREE = lease("10.5.3.0/24", "192.0.2.3", "03")


def peers_of(*leases: Lease, config: NetworkConfig = SINGLE, own: Lease = OWN) -> Peers:
    peers = Peers(config, own)
    for lease in leases:
        peers.put(lease.key, lease)
    return peers


def test_an_honest_lease_is_served_and_one_that_is_gone_is_not() -> None:
    peers = peers_of(TWO, THREE)
    assert (peers.served, peers.errors) == ({TWO.key: TWO, THREE.key: THREE}, {})
    assert peers.put(TWO.key, None) == {TWO.key: TWO}
    assert (peers.served, peers.errors) == ({THREE.key: THREE}, {})


def test_of_a_lease_that_changed_the_one_served_before_is_reported() -> None:
    peers = peers_of(TWO)
    moved = lease("10.5.2.0/24", "192.0.2.99", "02")
    assert peers.put(moved.key, moved) == {TWO.key: TWO}
    assert peers.served == {TWO.key: moved}


def test_the_own_key_is_no_peers_whatever_it_says() -> None:
    peers = peers_of(TWO)
    for value in (OWN, lease("10.5.1.0/24", "192.0.2.66", "66"), "not JSON", None):
        assert peers.put(OWN.key, value) == {}
    assert (peers.served, peers.errors) == ({TWO.key: TWO}, {})


def test_what_cannot_be_read_is_a_fault_of_its_own_alone() -> None:
    peers = peers_of(TWO, THREE)
    assert peers.put("nonsense", "'nonsense' is not the key of a subnet") == {"nonsense": None}
    assert peers.put(TWO.key, "the lease is not JSON") == {TWO.key: TWO}
    assert peers.served == {THREE.key: THREE}
    assert peers.errors == {"nonsense": "'nonsense' is not the key of a subnet", TWO.key: "the lease is not JSON"}
    peers.put("nonsense", None)
    peers.put(TWO.key, TWO)
    assert (peers.served, peers.errors) == ({TWO.key: TWO, THREE.key: THREE}, {})


@pytest.mark.parametrize(
    ("invalid", "error"),
    [
        (lease("10.5.9.0/24", "192.0.2.9", "09", backend="udp"), "its backend is udp, not vxlan"),
        (lease("10.5.9.0/24", "192.0.2.9", "09", backend=""), "its backend is missing, not vxlan"),
        (lease("10.5.9.0/24", "192.0.2.9", "09", vni=2), "its VNI is 2, not 1"),
        (lease("10.6.9.0/24", "192.0.2.9", "09"), "10.6.9.0/24 is not in 10.5.0.0/16"),
        (lease("0.0.0.0/0", "192.0.2.9", "09"), "0.0.0.0/0 is not in 10.5.0.0/16"),
        (lease("10.5.0.0/16", "192.0.2.9", "09"), "10.5.0.0/16 is not in 10.5.0.0/16"),
        (lease("10.4.0.0/15", "192.0.2.9", "09"), "10.4.0.0/15 is not in 10.5.0.0/16"),
        (lease("10.5.0.0/17", "192.0.2.9", "09"), "subnet 10.5.1.0/24 is this node's"),
        (lease("10.5.1.128/25", "192.0.2.9", "09"), "subnet 10.5.1.0/24 is this node's"),
        (lease("10.5.9.0/24", "192.0.2.1", "09"), "address 192.0.2.1 is this node's"),
        (lease("10.5.9.0/24", "192.0.2.9", "01"), "MAC address 0a:00:00:00:00:01 is this node's"),
    ],
)
def test_a_lease_with_a_fault_of_its_own_is_not_served_and_harms_nobody(invalid: Lease, error: str) -> None:
    behind = lease("10.5.99.0/24", "192.0.2.9", "09")  # whose key comes later, with the same address and MAC address
    for order in ((invalid, behind), (behind, invalid)):
        peers = peers_of(*order)
        assert peers.errors == {invalid.key: error}
        assert peers.served == {behind.key: behind}


@pytest.mark.parametrize(
    ("connected", "subnet", "error"),
    [
        ("10.5.2.0/24", "10.5.2.0/24", "10.5.2.0/24 overlaps 10.5.2.0/24, a network that this node is connected to"),
        ("10.5.2.0/25", "10.5.2.0/24", ""),  # the longer prefix wins
        ("10.5.2.128/25", "10.5.2.0/24", ""),
        ("10.5.0.0/22", "10.5.2.0/24", "10.5.2.0/24 overlaps 10.5.0.0/22, a network that this node is connected to"),
        ("10.5.0.0/16", "10.5.2.0/24", "10.5.2.0/24 overlaps 10.5.0.0/16, a network that this node is connected to"),
        ("10.4.0.0/15", "10.5.2.0/24", ""),
        ("10.0.0.0/8", "10.5.2.0/24", ""),  # the pods' network is meant to be a part of the nodes'
        ("192.0.2.0/24", "10.5.2.0/24", ""),
    ],
)
def test_no_peer_takes_a_network_that_this_node_itself_is_in(connected: str, subnet: str, error: str) -> None:
    peers = Peers(SINGLE, OWN, (parse_net(connected),))
    peers.put("key", lease(subnet, "192.0.2.2", "02"))
    assert peers.errors.get("key", "") == error
    assert bool(peers.served) == (not error)


def test_a_tunnel_cannot_lead_through_itself() -> None:
    peers = peers_of(lease("10.5.2.0/24", "10.5.2.9", "02"))
    assert list(peers.errors.values()) == ["its own address 10.5.2.9 is in 10.5.2.0/24"]


def test_a_host_gw_network_knows_neither_vni_nor_mac_address() -> None:
    own = lease("10.5.1.0/24", "192.0.2.1", backend="host-gw", vni=0)
    peer = lease("10.5.2.0/24", "192.0.2.2", backend="host-gw", vni=0)
    tunnel = lease("10.5.3.0/24", "192.0.2.3", "03")
    peers = peers_of(peer, tunnel, config=HOST_GW, own=own)
    assert peers.served == {peer.key: peer}
    assert peers.errors == {tunnel.key: "its backend is vxlan, not host-gw"}


CONFLICTS = [
    (TWO, lease("10.5.3.0/24", "192.0.2.3", "02"), "MAC address 0a:00:00:00:00:02", "MAC address 0a:00:00:00:00:02"),
    (
        lease("10.5.2.0/25", "192.0.2.2", "02"),
        lease("10.5.2.64/26", "192.0.2.3", "03"),
        "subnet 10.5.2.0/25",
        "subnet 10.5.2.64/26",
    ),
    (
        lease("10.5.128.0/17", "192.0.2.3", "03"),
        lease("10.5.200.0/27", "192.0.2.2", "02"),
        "subnet 10.5.128.0/17",
        "subnet 10.5.200.0/27",
    ),
    (
        lease("10.5.128.0/17", "192.0.2.3", "03"),
        lease("10.5.192.0/18", "192.0.2.3", "03"),  # a node that was given less before its old lease has ended
        "subnet 10.5.128.0/17",
        "subnet 10.5.192.0/18",
    ),
]


@pytest.mark.parametrize(("first", "second", "claim", "_"), CONFLICTS)
def test_of_two_of_the_same_age_that_claim_the_same_the_one_whose_key_comes_first_is_served(
    first: Lease, second: Lease, claim: str, _: str
) -> None:
    for order in ((first, second), (second, first)):
        peers = peers_of(*order)
        assert peers.served == {first.key: first}
        assert peers.errors == {second.key: f"{claim} is {first.key}'s, whose key comes first"}
        assert peers.put(first.key, None) == {first.key: first, second.key: None}
        assert (peers.served, peers.errors) == ({second.key: second}, {})


@pytest.mark.parametrize(("first", "second", "_", "claim"), CONFLICTS)
@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"created": 7}, {"created": 8}, "which is newer"),
        ({"created": 8, "lives": False}, {"created": 7}, "which is ready"),
        ({"created": 7, "lives": False}, {"created": 8, "lives": False}, "which is newer"),
    ],
)
def test_of_two_that_claim_the_same_the_one_that_lives_or_the_newer_is_served(
    first: Lease, second: Lease, _: str, claim: str, old: dict[str, Any], new: dict[str, Any], reason: str
) -> None:
    stale, alive = first._replace(**old), second._replace(**new)
    for order in ((stale, alive), (alive, stale)):
        peers = peers_of(*order)
        assert peers.served == {alive.key: alive}
        assert peers.errors == {stale.key: f"{claim} is {alive.key}'s, {reason}"}
        assert peers.put(alive.key, None) == {alive.key: alive, stale.key: None}
        assert (peers.served, peers.errors) == ({stale.key: stale}, {})


@pytest.mark.parametrize("mac", ["02", "03"])
def test_several_subnets_behind_one_address_are_all_served(mac: str) -> None:
    renamed = lease("10.5.3.0/24", "192.0.2.2", mac)
    peers = peers_of(TWO, renamed)
    assert (peers.served, peers.errors) == ({TWO.key: TWO, renamed.key: renamed}, {})


def test_both_leases_of_a_node_are_served_that_got_its_second_family_later() -> None:
    single = lease("10.5.2.0/24", "192.0.2.2", "02")
    both = endpoint("10.5.3.0/24", "192.0.2.2", "02"), endpoint("fd00:5:0:3::/64", "fd01::2", "02")
    peers, dual = Peers(DUAL, OWN), Lease(both, "vxlan", 1)
    for peer in (single, dual):
        peers.put(peer.key, peer)
    assert (peers.served, peers.errors) == ({single.key: single, dual.key: dual}, {})


def test_an_end_of_a_tunnel_is_used_until_the_last_lease_behind_it_is_gone() -> None:
    other = lease("10.5.3.0/24", "192.0.2.2", "02")
    end = mac_of("02"), parse_ip("192.0.2.2")
    peers = peers_of(TWO, other)
    for gone, used in ((TWO, True), (other, False)):
        assert peers.is_used(*end)
        assert peers.put(gone.key, None) == {gone.key: gone}
        assert peers.is_used(*end) == used


def test_who_is_cut_off_itself_cuts_off_nobody() -> None:
    """The middle one of three conflicts with both others, and the newest of all is believed."""
    old = lease("10.5.2.0/25", "192.0.2.2", "02")._replace(created=1)
    wide = lease("10.5.2.0/23", "192.0.2.3", "03")._replace(created=2)
    new = lease("10.5.3.0/25", "192.0.2.4", "04")._replace(created=3)
    for order in ((old, wide, new), (new, wide, old), (wide, new, old)):
        peers = peers_of(*order)
        assert peers.served == {old.key: old, new.key: new}
        assert peers.put(new.key, None) == {new.key: new, wide.key: None, old.key: old}
        assert peers.served == {wide.key: wide}


def test_a_mac_address_is_the_nodes_from_whose_address_it_follows() -> None:
    """Whoever tells it later with an address of his own, does so to cut the node off."""
    address = parse_ip("192.0.2.2")
    mac = derived_mac(address, 1)
    true = Lease((Endpoint(parse_net("10.5.2.0/24"), address, mac),), "vxlan", 1, created=1)
    thief = Lease((Endpoint(parse_net("10.5.9.0/24"), parse_ip("192.0.2.9"), mac),), "vxlan", 1, created=2)
    for order in ((true, thief), (thief, true)):
        peers = peers_of(*order)
        assert peers.served == {true.key: true}
        assert peers.errors == {
            thief.key: f"MAC address {mac_text(mac)} is {true.key}'s, from whose address it follows"
        }


@pytest.mark.parametrize("subnet", ["10.5.2.0/23", "10.5.2.0/25", "10.5.0.0/17"])
def test_no_lease_of_a_length_that_subnets_do_not_have_cuts_off_those_that_have_it(subnet: str) -> None:
    strange = lease(subnet, "192.0.2.9", "09")._replace(created=9)
    own = lease("10.5.200.0/24", "192.0.2.1", "01")
    peers = peers_of(strange, TWO, THREE, own=own)
    assert peers.served == {TWO.key: TWO, THREE.key: THREE}
    assert peers.errors == {strange.key: "subnet 10.5.2.0/24 is 10.5.2.0-24's, which has the network's subnet length"}
    peers.put(TWO.key, TWO._replace(lives=False))
    assert (TWO.key in peers.served) == (subnet != "10.5.2.0/25")  # the others would cut off THREE as well


def test_a_lease_that_says_the_same_again_is_no_change() -> None:
    rival = lease("10.5.2.128/25", "192.0.2.4", "04")
    peers = peers_of(TWO, THREE, rival)
    assert peers.put(TWO.key, TWO) == {}
    assert peers.put(rival.key, rival) == {}
    assert peers.put("nonsense", None) == {}


def test_a_lease_without_a_vni_has_the_networks() -> None:
    wide = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 4096}}', "wide")
    own = OWN._replace(vni=4096)
    peers = peers_of(TWO._replace(vni=0), config=wide, own=own)
    assert peers.served == {TWO.key: TWO._replace(vni=4096)}


def test_equal_subnets_under_different_keys_are_served_once() -> None:
    peers = Peers(DUAL, OWN)
    alone, both = (
        TWO,
        Lease((endpoint("10.5.2.0/24", "192.0.2.3", "03"), endpoint("fd00:5:0:2::/64", "fd01::3", "03")), "vxlan"),
    )
    both = both._replace(vni=1)
    peers.put(both.key, both)
    assert peers.put(alone.key, alone) == {alone.key: None, both.key: both}
    assert (peers.served, [*peers.errors]) == ({alone.key: alone}, [both.key])


def test_the_families_of_a_node_are_judged_together() -> None:
    peers = Peers(DUAL, OWN)
    first = Lease(
        (endpoint("10.5.2.0/24", "192.0.2.2", "02"), endpoint("fd00:5:0:2::/64", "fd01::2", "02")), "vxlan", 1
    )
    other = Lease(
        (endpoint("10.5.3.0/24", "192.0.2.3", "03"), endpoint("fd00:5:0:2::/64", "fd01::3", "03")), "vxlan", 1
    )
    strange = Lease((endpoint("10.5.4.0/24", "192.0.2.4", "04"), endpoint("fd00:6::/64", "fd01::4", "04")), "vxlan", 1)
    for peer in (first, other, strange):
        peers.put(peer.key, peer)
    assert peers.served == {first.key: first}
    assert peers.errors[other.key] == f"subnet fd00:5:0:2::/64 is {first.key}'s, whose key comes first"
    assert peers.errors[strange.key] == "fd00:6::/64 is not in fd00:5::/56"


def test_the_device_of_each_family_may_have_the_same_mac_address() -> None:
    peers = Peers(DUAL, OWN)
    first = Lease(
        (endpoint("10.5.2.0/24", "192.0.2.2", "02"), endpoint("fd00:5:0:2::/64", "fd01::2", "03")), "vxlan", 1
    )
    other = Lease(
        (endpoint("10.5.3.0/24", "192.0.2.3", "03"), endpoint("fd00:5:0:3::/64", "fd01::3", "02")), "vxlan", 1
    )
    for peer in (first, other):
        peers.put(peer.key, peer)
    assert len(peers.served) == 2


def test_of_a_family_that_the_network_does_not_use_nothing_counts() -> None:
    """Such are left from a network that had both families."""
    first = Lease(
        (endpoint("10.5.2.0/24", "192.0.2.2", "02"), endpoint("fd00:5:0:2::/64", "fd01::2", "02")), "vxlan", 1
    )
    other = Lease(
        (endpoint("10.5.3.0/24", "192.0.2.3", "03"), endpoint("fd00:5:0:2::/64", "fd01::2", "02")), "vxlan", 1
    )
    peers = peers_of(first, other)
    assert peers.served == {first.key: used(SINGLE, first), other.key: used(SINGLE, other)}
    assert not peers.errors


def test_a_node_of_another_family_alone_is_not_served() -> None:
    six = parse_network_config(
        b'{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:5::/56", "Backend": {"Type": "vxlan"}}', "six"
    )
    own = Lease((endpoint("fd00:5:0:1::/64", "fd01::1", "01"),), "vxlan", 1)
    assert peers_of(TWO, config=six, own=own).errors == {TWO.key: "it has no subnet of the network's families"}


def used(config: NetworkConfig, peer: Lease) -> Lease:
    return peer._replace(
        endpoints=tuple(endpoint for endpoint in peer.endpoints if endpoint.subnet.family in config.families)
    )


def reference(config: NetworkConfig, own: Lease, leases: dict[str, Lease | str]) -> dict[str, Lease]:
    """Served is who has no fault of its own, and conflicts with nobody who is served and is believed before it."""
    sound = {
        key: peer
        for key, peer in leases.items()
        if isinstance(peer, Lease) and key != own.key and not is_faulty(config, own, peer)
    }
    served: dict[str, Lease] = {}
    usual = {4: 24, 6: 64}

    def rank(key: str) -> tuple[bool, bool, int, str]:
        peer = sound[key]
        strange = any(
            endpoint.subnet.prefix != usual[endpoint.subnet.family] for endpoint in used(config, peer).endpoints
        )
        return not peer.lives, strange, -peer.created, key

    for key in sorted(sound, key=rank):
        peer = sound[key]
        if not any(conflict(config, peer, theirs) for theirs in served.values()):
            served[key] = used(config, peer)
    return served


@cache  # it is asked about each lease after each change
def is_faulty(config: NetworkConfig, own: Lease, peer: Lease) -> bool:
    inside = all(
        config.network(endpoint.subnet.family).contains(endpoint.subnet.ip)
        and endpoint.subnet.prefix > config.network(endpoint.subnet.family).prefix
        for endpoint in peer.endpoints
        if endpoint.subnet.family in config.families
    )
    kind = config.backend.kind
    unreachable = any(
        not endpoint.is_reachable or endpoint.subnet.contains(endpoint.public_ip)
        for endpoint in peer.endpoints
        if endpoint.subnet.family in config.families
    )
    return (
        unreachable
        or peer.backend != kind
        or (kind == "vxlan" and peer.vni != config.backend.vni)
        or not inside
        or conflict(config, peer, own)
        or any(
            endpoint.public_ip in {mine.public_ip for mine in own.endpoints}
            for endpoint in used(config, peer).endpoints
        )
    )


def conflict(config: NetworkConfig, peer: Lease, other: Lease) -> bool:
    return any(
        overlap(mine.subnet, theirs.subnet)
        or (mine.vtep_mac is not None and mine.vtep_mac == theirs.vtep_mac and mine.public_ip != theirs.public_ip)
        for mine in peer.endpoints
        for theirs in other.endpoints
        if mine.subnet.family == theirs.subnet.family and mine.subnet.family in config.families
    )


def overlap(net: Net, other: Net) -> bool:
    return net.ip.value <= other.last.value and other.ip.value <= net.last.value


def any_lease(dice: random.Random, *, dual: bool) -> Lease:
    """Returns a random lease, from so few values that there are conflicts of every kind."""
    endpoints = [any_endpoint(dice, 4, IP(4, 10 << 24 | 5 << 16), (17, 20, 24, 24, 24, 24, 26))]
    if dual and dice.random() < 0.7:
        endpoints.append(any_endpoint(dice, 6, parse_ip("fd00:5::"), (57, 60, 64, 64, 64, 64)))
    return Lease(tuple(endpoints), dice.choice(("vxlan",) * 15 + ("host-gw",)), dice.choice((1,) * 15 + (2,)))._replace(
        lives=dice.random() < 0.8, created=dice.randrange(4)
    )


def any_endpoint(dice: random.Random, family: int, network: IP, lengths: tuple[int, ...]) -> Endpoint:
    length = dice.choice(lengths)
    places = dice.choice((8, 8, 8, 300))  # 300: also outside the network
    step = 1 << (8 if family == 4 else 64)
    subnet = Net(IP(family, network.value + dice.randrange(places) * step), length).network
    return Endpoint(
        subnet, IP(family, network.value + dice.randrange(1, 12)), bytes([2, 0, 0, 0, 0, dice.randrange(1, 12)])
    )


def any_news(dice: random.Random, leases: dict[str, Lease | str], *, dual: bool) -> tuple[str, Lease | str | None]:
    if leases and dice.random() < 0.3:
        key = dice.choice(sorted(leases))
        del leases[key]
        return key, None
    peer = any_lease(dice, dual=dual)
    leases[peer.key] = peer if dice.random() < 0.9 else "cannot be read"
    return peer.key, leases[peer.key]


@pytest.mark.parametrize("seed", seeds(30))
@pytest.mark.parametrize(("config", "dual"), [(SINGLE, False), (DUAL, True), (SINGLE, True)])
def test_after_any_news_just_those_are_served_that_the_reference_serves(
    seed: int, config: NetworkConfig, *, dual: bool
) -> None:
    dice = random.Random(seed)
    own = Lease((endpoint("10.5.1.0/24", "10.5.0.1", "01"),), "vxlan", 1)
    if dual:
        own = own._replace(endpoints=(*own.endpoints, endpoint("fd00:5:0:1::/64", "fd00:5::1", "01")))
    peers, leases = Peers(config, own), dict[str, Lease | str]()
    for step in range(60):
        before = dict(peers.served)
        key, news = any_news(dice, leases, dual=dual)
        reported = peers.put(key, news)
        after = peers.served
        assert after == reference(config, own, leases)
        assert set(peers.errors) == {lease for lease in leases if lease not in after and lease != own.key}
        changed = {peer_key for peer_key in before.keys() | after.keys() if before.get(peer_key) != after.get(peer_key)}
        assert changed <= reported.keys()
        assert reported == {peer_key: before.get(peer_key) for peer_key in reported}
        assert all(
            before.get(peer_key) != after.get(peer_key) or peer_key in peers.errors or peer_key == key
            for peer_key in reported
        )
        if step % 6 == 5:
            all_at_once = Peers(config, own)
            all_at_once.load(leases)
            assert (all_at_once.served, all_at_once.errors) == (peers.served, peers.errors)


@pytest.mark.parametrize("prefix", [20, 24])
def test_however_many_peers_there_are_a_change_is_about_a_few(prefix: int) -> None:
    """Also where the length of subnets was changed, or a machine was copied with its MAC address many times."""
    wide = parse_network_config(b'{"Network": "10.0.0.0/8", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}', "wide")
    peers = Peers(wide, lease("10.255.1.0/24", "192.0.2.1", "01"))
    for number in range(300):
        subnet = Net(IP(4, (10 << 24) + (number << 32 - prefix)), prefix)
        mac = bytes([2, 0, 0, 0, 0, max(0, number - 200)])
        peer = Lease((Endpoint(subnet, IP(4, (198 << 24) + number), mac),), "vxlan", 1)
        assert len(peers.put(peer.key, peer)) <= 2
    assert len(peers.served) == 100


def test_a_lease_with_an_address_that_no_node_has_is_not_served() -> None:
    peers = peers_of(lease("10.5.2.0/24", "127.0.0.1", "02"))
    assert peers.served == {}
    assert [text for text in peers.errors.values() if "127.0.0.1" in text]


def test_the_own_lease_among_all_is_not_a_peers() -> None:
    peers = Peers(SINGLE, OWN)
    peers.load({OWN.key: OWN, TWO.key: TWO})
    assert (peers.served, peers.errors) == ({TWO.key: TWO}, {})
