"""Leases in flannel's words: what is written is held to it byte for byte, what is read is as lenient as it."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest

from cni.agent.model.lease import (
    Endpoint,
    Lease,
    Node,
    NodeAddress,
    lease_key,
    lease_value,
    parse_key,
    parse_lease,
)
from cni.agent.model.leaseformat import derived_mac
from cni.protocol.address import IP, Net, parse_ip, parse_mac, parse_net

MAC, OTHER_MAC = parse_mac("c6:d2:32:6f:8f:44"), parse_mac("0a:58:00:00:00:01")
ENDPOINT4 = Endpoint(parse_net("10.5.52.0/24"), parse_ip("192.168.64.3"), MAC)
ENDPOINT6 = Endpoint(parse_net("fc00:0:0:1::/64"), parse_ip("fd00::3"), OTHER_MAC)
BARE4, BARE6 = ENDPOINT4._replace(vtep_mac=None), ENDPOINT6._replace(vtep_mac=None)
VALUES = {
    b'{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",'
    b'"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}': Lease((ENDPOINT4,), "vxlan", 1),
    b'{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"vxlan",'
    b'"BackendData":{"VNI":7,"VtepMAC":"c6:d2:32:6f:8f:44"},'
    b'"BackendV6Data":{"VNI":7,"VtepMAC":"0a:58:00:00:00:01"}}': Lease((ENDPOINT4, ENDPOINT6), "vxlan", 7),
    b'{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"host-gw"}': Lease((BARE4,), "host-gw"),
    b'{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"host-gw"}': Lease((BARE4, BARE6), "host-gw"),
}


@pytest.mark.parametrize(("value", "lease"), VALUES.items())
def test_a_value_is_flannels_byte_for_byte_and_is_read_again(value: bytes, lease: Lease) -> None:
    assert lease_value(lease) == value
    assert parse_lease(lease.subnets, value) == lease


def test_older_programs_tell_no_vni_and_others_write_mac_addresses_in_other_ways() -> None:
    value = b'{"publicip":"192.168.64.3","BackendType":"vxlan","BackendData":{"vtepmac":"%s","Extra":[1,{"x":null}]}}'
    for text in (b"C6:D2:32:6F:8F:44", b"c6-d2-32-6f-8f-44", b"c6d2.326f.8f44"):
        assert parse_lease((ENDPOINT4.subnet,), value % text) == Lease((ENDPOINT4,), "vxlan", 0)


def test_the_vni_may_be_reported_with_either_family() -> None:
    value = (
        b'{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"vxlan","BackendData":'
        b'{"VtepMAC":"c6:d2:32:6f:8f:44"},"BackendV6Data":{"VNI":7,"VtepMAC":"0a:58:00:00:00:01"}}'
    )
    assert parse_lease((ENDPOINT4.subnet, ENDPOINT6.subnet), value) == Lease((ENDPOINT4, ENDPOINT6), "vxlan", 7)


def test_without_ipv4_its_address_is_gos_zero_value() -> None:
    lease = Lease((ENDPOINT6,), "vxlan", 1)
    assert lease_value(lease).startswith(b'{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::3","BackendType":"vxlan",')
    assert b"BackendData" not in lease_value(lease)


@pytest.mark.parametrize(
    ("key", "subnets"),
    [
        ("10.5.52.0-24", ["10.5.52.0/24"]),
        ("10.5.34.0-24&fc00:0:0:1::-64", ["10.5.34.0/24", "fc00:0:0:1::/64"]),
        ("10.5.34.0-24&fc00::-64", ["10.5.34.0/24", "fc00::/64"]),
        ("fc00::-64", ["fc00::/64"]),
    ],
)
def test_a_key_is_read_and_written_alike(key: str, subnets: list[str]) -> None:
    assert parse_key(key) == tuple(map(parse_net, subnets))
    assert lease_key(map(parse_net, subnets)) == key
    assert Lease(tuple(Endpoint(parse_net(subnet), parse_ip("::1")) for subnet in subnets), "vxlan", 1).key == key


@pytest.mark.parametrize(
    "key",
    [
        "",
        "config",
        "10.5.52.0",
        "10.5.52.0-",
        "10.5.52.0-33",
        "10.5.52.0/24",
        "10.5.52.0-024",
        "10.5.52-24",
        "10.5.52.3-24",
        "010.5.52.0-24",
        " 10.5.52.0-24",
        "10.5.52.0-24 ",
        "10.5.52.0-24&",
        "&10.5.52.0-24",
        "10.5.52.0-24&10.5.53.0-24",
        "10.5.52.0-24&fc00::-64&fc01::-64",
        "fc00::-64&10.5.52.0-24",
        "10.5.52.0-24&fc00::1-64",
        "10.5.52.0-24&fc00:0:0:0::-64",
        "10.5.52.0-24&FC00::-64",
        "::ffff:10.5.52.0-24",
        "10.5.52.0-24/x",
        "10.5.52.0-24\n",
        "\ufffd",
    ],
)
def test_another_key_is_no_lease(key: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_key(key)


@pytest.mark.parametrize("change", [str.upper, str.lower, str.swapcase])
def test_keys_are_read_in_any_case(change: Any) -> None:
    text = (
        f'{{"{change("PublicIP")}":"192.168.64.3","{change("BackendType")}":"vxlan",'
        f'"{change("BackendData")}":{{"{change("VNI")}":3,"{change("VtepMAC")}":"C6-D2-32-6F-8F-44"}}}}'
    )
    assert parse_lease((ENDPOINT4.subnet,), text.encode()) == Lease((ENDPOINT4,), "vxlan", 3)


def test_unknown_members_and_white_space_do_not_matter() -> None:
    text = b' {"PublicIP": "192.168.64.3", "BackendType": "host-gw", "BackendData": null, "Since": [1, {}]}\n'
    assert parse_lease((ENDPOINT4.subnet,), text) == Lease((BARE4,), "host-gw")


def test_an_ipv4_key_is_an_ipv4_lease_whatever_else_is_told() -> None:
    (dual,) = [value for value, lease in VALUES.items() if len(lease.endpoints) == 2 and lease.backend == "vxlan"]
    assert parse_lease((ENDPOINT4.subnet,), dual) == Lease((ENDPOINT4,), "vxlan", 7)


def test_what_another_backend_says_of_itself_is_not_read() -> None:
    text = b'{"PublicIP":"192.168.64.3","BackendType":"wireguard","BackendData":"a key"}'
    assert parse_lease((ENDPOINT4.subnet,), text) == Lease((BARE4,), "wireguard")


DATA = '"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}'


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("", "the lease is empty"),
        ("nonsense", "the lease is not JSON"),
        ("[]", "the lease is not a JSON object"),
        ("[" * 5000, "the lease is nested too deep"),
        ("{}", "PublicIP: missing"),
        (f'{{"PublicIP":null,"BackendType":"vxlan",{DATA}}}', "PublicIP: missing"),
        (f'{{"PublicIP":"0.0.0.0","BackendType":"vxlan",{DATA}}}', "PublicIP: missing"),
        (f'{{"PublicIP":"192.168.64","BackendType":"vxlan",{DATA}}}', "PublicIP: '192.168.64' is not an IP address"),
        (f'{{"PublicIP":"fd00::3","BackendType":"vxlan",{DATA}}}', "PublicIP: fd00::3 is not an IPv4 address"),
        (f'{{"PublicIP":1,"BackendType":"vxlan",{DATA}}}', "PublicIP: expected a text"),
        ('{"PublicIP":"192.168.64.3","BackendType":"vxlan"}', "BackendData.VtepMAC: missing"),
        ('{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":null}', "BackendData.VtepMAC: missing"),
        ('{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":7}', "BackendData: expected an object"),
        (
            '{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VtepMAC":"ff:ff:ff:ff:ff:ff"}}',
            "BackendData.VtepMAC: 'ff:ff:ff:ff:ff:ff' is a group or null address",
        ),
        (
            '{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VNI":16777216,"VtepMAC":"c6:d2:32:6f:8f:44"}}',
            "BackendData.VNI: 16777216 is not between 0 and 16777215",
        ),
    ],
)
def test_what_is_wrong_with_a_value_is_reported(value: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
        parse_lease((ENDPOINT4.subnet,), value.encode())
    assert error in str(refused.value)
    assert str(refused.value).count(error) == 1


def test_a_dual_stack_key_needs_both_families() -> None:
    (single,) = [value for value, lease in VALUES.items() if lease == Lease((ENDPOINT4,), "vxlan", 1)]
    with pytest.raises(ValueError, match=r"^PublicIPv6: missing$"):
        parse_lease((ENDPOINT4.subnet, ENDPOINT6.subnet), single)
    without = b'{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"vxlan",' + DATA.encode() + b"}"
    with pytest.raises(ValueError, match=r"^BackendV6Data\.VtepMAC: missing$"):
        parse_lease((ENDPOINT4.subnet, ENDPOINT6.subnet), without)
    mapped = without.replace(b"fd00::3", b"::ffff:192.168.64.3")
    with pytest.raises(ValueError, match=r"PublicIPv6: 192\.168\.64\.3 is not an IPv6 address"):
        parse_lease((ENDPOINT4.subnet, ENDPOINT6.subnet), mapped)


def any_lease(dice: random.Random) -> Lease:
    vxlan = dice.random() < 0.7
    endpoints = [any_endpoint(dice, 4, dice.randrange(8, 31), vxlan=vxlan)]
    if dice.random() < 0.5:
        endpoints.append(any_endpoint(dice, 6, dice.randrange(8, 127), vxlan=vxlan))
    return Lease(tuple(endpoints), "vxlan", dice.randrange(1 << 24)) if vxlan else Lease(tuple(endpoints), "host-gw")


def any_endpoint(dice: random.Random, family: int, length: int, *, vxlan: bool) -> Endpoint:
    bits = 32 if family == 4 else 128
    zeros = dice.choice((0, 16, 64)) if family == 6 else 0  # such as make texts short
    value = dice.randrange(1, 1 << bits - zeros)
    subnet = Net(IP(family, value), length).network
    mac = bytes([dice.randrange(128) << 1 or 2, *dice.randbytes(5)]) if vxlan else None
    return Endpoint(subnet, IP(family, value), mac)


def test_any_lease_is_read_as_it_was_written() -> None:
    dice = random.Random(1)
    for _ in range(1000):
        lease = any_lease(dice)
        assert parse_lease(parse_key(lease.key), lease_value(lease)) == lease


def test_any_garbage_is_a_value_error_and_nothing_else() -> None:
    dice = random.Random(2)
    for value in VALUES:
        for _ in range(500):
            broken = bytearray(value)
            for _ in range(dice.randrange(1, 4)):
                place = dice.randrange(len(broken))
                broken[place : place + dice.randrange(3)] = dice.randbytes(dice.randrange(3))
            with suppress(ValueError):
                assert parse_lease((ENDPOINT4.subnet, ENDPOINT6.subnet), bytes(broken)).subnets == (
                    ENDPOINT4.subnet,
                    ENDPOINT6.subnet,
                )


def test_a_derived_mac_address_follows_from_address_and_vni_alone() -> None:
    """It is the same in all versions, since nodes of different ones have to agree."""
    macs = {derived_mac(parse_ip(ip), vni) for ip in ("192.0.2.1", "192.0.2.2", "fd00::1") for vni in (1, 2)}
    assert len(macs) == 6
    assert {mac[0] & 3 for mac in macs} == {2}  # locally administered, unicast
    assert derived_mac(parse_ip("192.0.2.1"), 1) == parse_mac("a2:2e:19:d5:a8:4e")


NODE = Node("vxlan", 1, (NodeAddress(ENDPOINT4.public_ip, OTHER_MAC), NodeAddress(ENDPOINT6.public_ip, OTHER_MAC)))


def test_a_nodes_lease_has_a_way_for_each_of_its_ends() -> None:
    lease = NODE.lease([ENDPOINT4.subnet, ENDPOINT6.subnet])
    assert lease == Lease((ENDPOINT4._replace(vtep_mac=OTHER_MAC), ENDPOINT6), "vxlan", 1)
    with pytest.raises(ValueError, match="zip"):
        NODE.lease([ENDPOINT4.subnet])


def test_the_mac_addresses_of_a_found_lease_stay() -> None:
    subnets = [parse_net("10.5.60.0/24"), ENDPOINT6.subnet]
    previous = Lease((ENDPOINT4._replace(public_ip=parse_ip("192.0.2.99")),), "vxlan", 1)
    assert NODE.lease(subnets, previous).endpoints == (Endpoint(subnets[0], ENDPOINT4.public_ip, MAC), ENDPOINT6)
    other_kind = Lease((ENDPOINT4,), "host-gw")
    assert NODE.lease(subnets, other_kind).endpoints[0].vtep_mac == OTHER_MAC
    bare = Node("host-gw", 0, (NodeAddress(ENDPOINT4.public_ip),))
    assert bare.lease(subnets[:1], previous) == Lease((Endpoint(subnets[0], ENDPOINT4.public_ip),), "host-gw", 0)
