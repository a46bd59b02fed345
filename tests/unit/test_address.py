"""Addresses and networks: the standard library's ipaddress is the oracle."""

from __future__ import annotations

import importlib.util
import ipaddress
import random
import socket
import sys

import pytest

from cni.protocol import address
from cni.protocol.address import IP, Net, address_family, ip_family, mac_text, parse_ip, parse_mac, parse_net

ROUNDS = 1500


def random_ip(chance: random.Random) -> IP:
    """Returns any address; runs of zeros and of ones are as frequent as other parts."""
    family = chance.choice((4, 6))
    parts = 4 if family == 4 else 8
    size = 8 if family == 4 else 16
    value = 0
    for _ in range(parts):
        value = value << size | chance.choice((0, 0, 1, (1 << size) - 1, chance.randrange(1 << size)))
    return IP(family, value)


def same(ip: IP) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.IPv4Address(ip.value) if ip.family == 4 else ipaddress.IPv6Address(ip.value)


def is_mapped(ip: IP) -> bool:
    return ip.family == 6 and ip.value >> 32 == 0xFFFF


def test_random_addresses_read_and_write_as_the_standard_library_does() -> None:
    chance = random.Random(1)
    for _ in range(ROUNDS):
        ip = random_ip(chance)
        if is_mapped(ip):
            continue
        other = same(ip)
        assert ip.text == str(other)
        assert ip.packed == other.packed
        assert ip.bits == other.max_prefixlen
        assert parse_ip(ip.text) == parse_ip(other.exploded.upper()) == ip


def test_random_networks_agree_with_the_standard_library() -> None:
    chance = random.Random(2)
    for _ in range(ROUNDS):
        ip, further = random_ip(chance), random_ip(chance)
        if is_mapped(ip):
            continue
        net = Net(ip, chance.randrange(ip.bits + 1))
        other = ipaddress.ip_interface((ip.value if ip.family == 4 else same(ip), net.prefix))
        assert net.text == str(other)
        assert net.family == other.version
        assert net.network.text == str(other.network)
        assert net.is_network == (net == net.network)
        assert same(net.last) == other.network.broadcast_address
        assert net.host == Net(ip, ip.bits)
        assert parse_net(net.text) == net
        assert net.contains(ip)
        assert net.contains(net.last)
        for member in (further, IP(ip.family, ip.value ^ 1 << chance.randrange(ip.bits))):
            assert net.contains(member) == (same(member) in other.network), (net.text, member.text)


def test_random_damage_is_accepted_or_refused_as_by_the_standard_library() -> None:
    chance = random.Random(3)
    refused = 0
    for _ in range(ROUNDS):
        text = random_ip(chance).text
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice(("", "0", ":", "::", ".", "1.", "g", " ", "256")) + text[place + 1 :]
        try:
            wanted = ipaddress.ip_address(text)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match="is not an IP address"):
                parse_ip(text)
        else:
            assert same(parse_ip(text)) == (getattr(wanted, "ipv4_mapped", None) or wanted), text
    assert refused > ROUNDS / 4


@pytest.mark.parametrize("text", ["::ffff:10.1.2.3", "::FFFF:a01:203", "0:0:0:0:0:ffff:10.1.2.3"])
def test_a_mapped_address_is_an_ipv4_address(text: str) -> None:
    assert parse_ip(text) == parse_ip("10.1.2.3")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0x01020304, "::102:304"), (0xFFFF, "::ffff"), (0x10000, "::1:0"), (1 << 32, "::1:0:0"), (0, "::"), (1, "::1")],
)
def test_a_small_ipv6_address_has_no_dots(value: int, text: str) -> None:
    assert IP(6, value).text == text
    assert parse_ip(text) == IP(6, value)


@pytest.mark.parametrize(
    "text", ["", "10.1.2", "010.1.2.3", "10.1.2.3\0", "10.1.2.3/24", "fe80::1%eth0", "\udc80", "é"]
)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address") as refusal:
        parse_ip(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize("text", ["10.1.2.3", "2001:db8::1", ""])
def test_a_network_without_prefix_length_is_told_how(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no prefix length \(as in .*/24\)"):
        parse_net(text)


@pytest.mark.parametrize(
    "text", ["10.1.2.3/", "10.1.2.3/33", "10.1.2.3/-1", "10.1.2.3/+8", "10.1.2.3/ 8", "10.1.2.3/²", "10.1.2.3/٣",
             "::1/129", "::1/9999", "10.1.2.3/24/8", "10.1.2.3/255.255.255.0", "::ffff:10.1.2.3/120"]
)  # fmt: skip
def test_a_prefix_length_out_of_reach_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"has no valid prefix length$"):
        parse_net(text)


def test_a_network_keeps_its_host_bits() -> None:
    net = parse_net("10.1.2.3/24")
    assert (net.text, net.network.text, net.host.text, net.last.text) == (
        "10.1.2.3/24",
        "10.1.2.0/24",
        "10.1.2.3/32",
        "10.1.2.255",
    )


@pytest.mark.parametrize("text", ["0a:58:0a:01:02:03", "0A-58-0A-01-02-03", "0a:58-0A:01-02:03", "0A58.0a01.0203"])
def test_a_mac_address_is_read_in_the_writings_of_go(text: str) -> None:
    assert mac_text(parse_mac(text)) == "0a:58:0a:01:02:03"


@pytest.mark.parametrize(
    "text", ["", "0a:58:0a:01:02", "0a:58:0a:01:02:03:04", "0a:58:0a:01:02:0", "0a:58:0a:01:02:0g", "0a58.0a01",
             "0a58.0a01.02.03", "0a58.0a01.203", "0a.58.0a.01.02.03", "0a58:0a01:0203", "0a58.0a01.0203.0405",
             "0a:58:0a:01:02: 3", "0a:58:0a:01:02:٣٣", "0a580a010203"]
)  # fmt: skip
def test_what_is_no_mac_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a MAC address"):
        parse_mac(text)


@pytest.mark.parametrize("text", ["00:00:00:00:00:00", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "03:00:00:00:00:01"])
def test_a_group_or_null_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is a group or null address"):
        parse_mac(text)


def test_without_the_private_module_the_public_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_socket", None)
    spec = importlib.util.spec_from_file_location("address_without_private_modules", address.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.inet_pton is socket.inet_pton
    assert module.parse_net("2001:db8::1/64").text == "2001:db8::1/64"


@pytest.mark.parametrize("text", ["10.1.2.3", "2001:db8::1"])
def test_packed_bytes_become_the_address(text: str) -> None:
    ip = parse_ip(text)
    assert IP.from_packed(ip.packed) == ip


@pytest.mark.parametrize("size", [0, 3, 5, 15, 17])
def test_bytes_of_another_length_are_not_an_address(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        IP.from_packed(bytes(size))


@pytest.mark.parametrize(
    ("text", "loopback", "link_local", "ipv6_link_local"),
    [
        ("127.0.0.1", True, False, False),
        ("127.255.255.255", True, False, False),
        ("128.0.0.1", False, False, False),
        ("::1", True, False, False),
        ("::2", False, False, False),
        ("169.254.0.1", False, True, False),
        ("169.255.0.1", False, False, False),
        ("fe80::1", False, True, True),
        ("febf:ffff::1", False, True, True),
        ("fec0::1", False, False, False),
        ("::a9fe:1", False, False, False),
    ],
)
def test_addresses_of_special_use_are_known(text: str, loopback: bool, link_local: bool, ipv6_link_local: bool) -> None:
    ip = parse_ip(text)
    assert (ip.is_loopback, ip.is_link_local, ip.is_ipv6_link_local) == (loopback, link_local, ipv6_link_local)


@pytest.mark.parametrize(("family", "number"), [(4, socket.AF_INET), (6, socket.AF_INET6)])
def test_address_families_are_those_of_the_socket_interface(family: int, number: int) -> None:
    assert address_family(family) == number
    assert ip_family(number) == family


@pytest.mark.parametrize("packed", [b"", bytes(3), bytes(5), bytes(17)])
def test_an_address_has_four_or_sixteen_bytes(packed: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(packed)} bytes"):
        IP.from_packed(packed)
